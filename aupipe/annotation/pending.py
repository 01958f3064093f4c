"""The videos to extract, in columns: a record and segments are made only for those that a worker gets next."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation import probed
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import INPUTS, Input, Inputs
from aupipe.annotation.segments import Segment
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import VideoRows, one_piece, take_rows
from aupipe.errors import AupipeError, redact

# The record of a video to extract, and its segments with their keys, in time order.
PendingVideo = tuple[VideoRecord, list[tuple[str, Segment]]]


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


# The columns of `Pending.to_bytes`. Repeated texts are plain ones, because a few rows may need a few texts of many.
_RESULTS = [name for name in probed.SCHEMA.names if name != "video_id"]
_BYTES = pa.schema([*INPUTS, *(_plain(probed.SCHEMA.field(name)) for name in _RESULTS)])


class Pending(VideoRows[PendingVideo]):
    """The videos to extract.

    A small file is there before it is probed (see `small_files`): its record has nothing but its name, and it has no
    segments.

    Attributes:
        inputs: of each row.
        frames: (n,) expected number of frames of each row.
        is_probed: (n,) bool, False of a small file, whose number of frames is estimated.
        frame_px: (n,) pixels of a frame of each row.
        segments: (n,) number of segments of each row.
    """

    def __init__(self, inputs: Inputs, results: pa.Table, keys: CacheKeys) -> None:
        """Create the collection of inputs in the order of their video_id.

        Args:
            results: of the inputs, in their order; a table of `probed.SCHEMA`.
        """
        super().__init__(inputs.ids)
        self.inputs, self._results, self._keys = inputs, results, keys
        self._records: dict[str, VideoRecord] = {}
        self.is_probed = results["fingerprint"].is_valid().to_numpy()
        self.frames = results["frames_expected"].fill_null(0).to_numpy()
        width, height = (results[name].fill_null(0).to_numpy() for name in ("frame_width", "frame_height"))
        self.frame_px = width.astype(np.int64) * height
        self.segments = pc.list_value_length(results["segments"]).to_numpy()

    def take(self, rows: np.ndarray) -> list[PendingVideo]:
        inputs = list(self.inputs.take(rows))
        results = probed.to_results(self._results.take(pa.array(rows)), inputs)
        return [self._pending(video, result) for video, result in zip(inputs, results, strict=True)]

    @classmethod
    def from_bytes(cls, data: bytes, keys: CacheKeys) -> Pending:
        """Read the videos of `to_bytes`."""
        table = pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(zlib.decompress(data)), _BYTES)])
        return cls(Inputs(table.select(INPUTS.names)), table.select(["video_id", *_RESULTS]), keys)

    def to_bytes(self) -> bytes:
        """Return the videos without changes of their records. Objects are made where these bytes are read."""
        columns = [*self.inputs.table.itercolumns(), *(self._results[name] for name in _RESULTS)]
        arrays = [
            one_piece(column) if column.type == field.type else one_piece(column).cast(field.type)
            for column, field in zip(columns, _BYTES, strict=True)
        ]  # fmt: skip
        return zlib.compress(pa.RecordBatch.from_arrays(arrays, schema=_BYTES).serialize(), 1)

    def subset(self, rows: np.ndarray) -> Pending:
        """Return the videos of rows (n,), ascending."""
        return Pending(self.inputs.take(rows), take_rows(self._results, rows), self._keys)

    def input(self, video_id: str) -> Input:
        """Return the input of a video.

        Raises:
            KeyError: it is not there.
        """
        row = self._row(video_id)
        if row is None:
            raise KeyError(video_id)
        return self.inputs[row]

    def sources(self) -> Iterator[tuple[Input, PendingVideo | None]]:
        """Yield the input of each row, and its record and segments, or None if it was not probed."""
        inputs = list(self.inputs)
        for video, result in zip(inputs, probed.to_results(self._results, inputs), strict=True):
            yield video, self._pending(video, result) if result.record else None

    def change(self, record: VideoRecord) -> None:
        """Set the record of a video."""
        self._records[record.video_id] = record

    def drop_changes(self, video_ids: Iterable[str]) -> None:
        """Drop the changed records of finished videos, because the ledger has them."""
        for video_id in video_ids:
            self._records.pop(video_id, None)

    def _pending(self, video: Input, result: ProbeResult) -> PendingVideo:
        if result.record is None:
            record = VideoRecord(redact(video.uri), video.video_id, stat_signature=video.signature or "")
            return self._records.get(video.video_id, record), []
        record, segments = pending_video(video, result, self._keys)
        return self._records.get(video.video_id, record), segments


def record_of(video: Input, result: ProbeResult) -> VideoRecord:
    """Return the record of a probed video.

    Raises:
        AupipeError: it has none.
    """
    if result.record is None:
        raise AupipeError(f"{video.video_id}: no record; fix: run the same command again")
    return replace(result.record, stat_signature=video.signature or "")


def pending_video(video: Input, result: ProbeResult, keys: CacheKeys) -> PendingVideo:
    """Return the record of a probed video whose extraction is due, and its segments with their keys."""
    record = replace(
        record_of(video, result), head_key=keys.head_key, decide_key=keys.decide_key, attempts=1,
        model_sha256=keys.models.sha256,
    )  # fmt: skip
    source_hash = record.source_hash
    return record, [(keys.segment(source_hash, segment), segment) for segment in result.segments]
