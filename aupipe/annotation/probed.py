"""The results of probing in columns, about 300 bytes per video with one segment and 60 for each further one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from aupipe.annotation import record_columns
from aupipe.annotation.inputs import Input
from aupipe.annotation.record_columns import RECORDS
from aupipe.annotation.segments import Segment
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import BATCH, one_piece, order_of, take_rows
from aupipe.errors import redact
from aupipe.media.frames import Span

# The fields of a record that its input does not give, and that are known before extraction.
_FIELDS = (
    "fingerprint", "source_hash", "losses", "loss_if_corrupt", "frames_expected", "duration_s", "rotation",
    "variable_frame_rate", "frame_width", "frame_height", "pixel_aspect", "hdr", "track", "tracks", "clock_restarts",
    "remark",
)  # fmt: skip
_SEGMENT = pa.struct([
    ("number", pa.int32()), ("write_start", pa.int32()), ("write_stop", pa.int32()), ("sampled_frames", pa.binary()),
    ("expected", pa.int32()), ("exact", pa.bool_()), ("first", pa.int32()), ("first_pts", pa.int64()),
    ("last_pts", pa.int64()), ("seek_pts", pa.list_(pa.int64())), ("track", pa.int32()), ("assume_fps", pa.float64()),
    ("by_order", pa.bool_()),
])  # fmt: skip
SCHEMA = pa.schema([
    ("video_id", pa.string()), ("reason", record_columns.REPEATED_TEXT),
    *(RECORDS.field(name) for name in _FIELDS), ("segments", pa.list_(_SEGMENT)),
])  # fmt: skip


class Probed:
    """The results of some videos, which grow.

    Attributes:
        count: number of results.
    """

    def __init__(self, tables: Iterable[pa.Table] = ()) -> None:
        """Create the collection of the results in tables of `SCHEMA`."""
        self._tables = list(tables)
        self._rows: list[dict[str, Any]] = []
        self.count = sum(map(len, self._tables))

    @classmethod
    def of(cls, results: Iterable[ProbeResult]) -> Probed:
        """Return the collection of these results."""
        probed = cls()
        for result in results:
            probed.add(result)
        return probed

    def add(self, result: ProbeResult) -> None:
        """Add the result of a further video."""
        self._rows.append(to_row(result))
        self.count += 1
        if len(self._rows) == BATCH:
            self._flush()

    def add_table(self, table: pa.Table) -> None:
        """Add a table of `SCHEMA`."""
        self._tables.append(table)
        self.count += len(table)

    def table(self) -> pa.Table:
        """Return the results in the order of their video_id."""
        self._flush()
        table = record_columns.concat(self._tables, SCHEMA)
        table = take_rows(table, order_of(one_piece(table["video_id"])))
        self._tables = [table]
        return table

    def _flush(self) -> None:
        if self._rows:
            self._tables.append(record_columns.table_of_rows(self._rows, SCHEMA))
            self._rows = []


def estimates(ids: pa.Array, frames: np.ndarray) -> pa.Table:
    """Return a table of `SCHEMA` of small files with about so many frames (n,) each. It has neither fingerprints nor
    reasons.
    """
    segments = pa.ListArray.from_arrays(np.zeros(len(ids) + 1, np.int32), pa.array([], _SEGMENT))
    expected = pa.array(frames, SCHEMA.field("frames_expected").type)
    known = pa.table({"video_id": ids, "frames_expected": expected, "segments": segments})
    table = pa.concat_tables([SCHEMA.empty_table(), known], promote_options="default")
    return table.combine_chunks()  # Otherwise each packet combines all rows again.


def to_row(result: ProbeResult) -> dict[str, Any]:
    """Return the row of a result."""
    row: dict[str, Any] = {"video_id": result.video_id, "reason": result.reason}
    if result.record is not None:
        record = result.record.to_row()
        row |= {name: record[name] for name in _FIELDS if name in record}
    return row | {"segments": [_segment_row(segment) for segment in result.segments]}


def to_results(table: pa.Table, inputs: Sequence[Input]) -> Iterator[ProbeResult]:
    """Yield the results of a table of `SCHEMA`, whose rows are those of the inputs."""
    for row, video in zip(table.to_pylist(), inputs, strict=True):
        record = None
        if row["fingerprint"] is not None:
            own = {"uri": redact(video.uri), "video_id": video.video_id}
            record = VideoRecord.from_row({name: row[name] for name in _FIELDS} | own)
        segments = [_segment(each, video) for each in row["segments"]]
        yield ProbeResult(video.video_id, row["reason"], record, segments)


def _segment_row(segment: Segment) -> dict[str, Any]:
    span = segment.span
    return {
        "number": segment.number, "write_start": segment.write_start, "write_stop": segment.write_stop,
        "sampled_frames": None if segment.sampled_frames is None else _packed(segment.sampled_frames),
        "expected": span.expected, "exact": span.exact, "first": span.first, "first_pts": span.first_pts,
        "last_pts": span.last_pts, "seek_pts": span.seek_pts, "track": span.track, "assume_fps": span.assume_fps,
        "by_order": span.by_order,
    }  # fmt: skip


def _segment(row: dict[str, Any], video: Input) -> Segment:
    span = Span(
        row["expected"], row["exact"], row["first"], row["first_pts"], row["last_pts"], tuple(row["seek_pts"]),
        row["track"], row["assume_fps"], row["by_order"],
    )  # fmt: skip
    sampled_frames = None if row["sampled_frames"] is None else _unpacked(row["sampled_frames"])
    return Segment(
        video.uri, video.video_id, row["number"], row["write_start"], row["write_stop"], span, sampled_frames
    )  # fmt: skip


def _packed(frames: Sequence[int]) -> bytes:
    """Return indices as bytes. Distances are compressed, because they repeat."""
    return zlib.compress(np.diff(np.array(frames, np.int64), prepend=0).tobytes(), 1)


def _unpacked(data: bytes) -> tuple[int, ...]:
    return tuple(np.cumsum(np.frombuffer(zlib.decompress(data), np.int64)).tolist())
