"""Writing of face stores: tables of one person's rows become Parquet shards and the card.

The name of a shard contains a hash of its inputs, and its bytes depend only on them, so writing a shard twice is
harmless. The footer of a shard contains its counts and those of the dropped rows, and the card is computed from the
footers alone. So an existing shard is complete, and a killed job resumes without a ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.facestore import columns
from aupipe.facestore.schema import (
    AUDIO_SCHEMA,
    CARD,
    MARK,
    ROW_GROUP_ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    TEST,
    Shard,
    SplitCounts,
    StoreCard,
    StoreHeader,
    TrackSpan,
)
from aupipe.media.audio import AudioBlock
from aupipe.parquet import damage_named
from aupipe.storage import Storage

_FOOTER = b"aupipe"
MAX_BAD_LINES = 100
_FOOTERS_AT_A_TIME = 16  # more than CPUs, because reading footers waits for the object store


def rows(
    *,
    video_id: str,
    person: str = "",
    frames: Sequence[int] | npt.NDArray[np.integer],
    images: Sequence[bytes],
    au: npt.NDArray[np.integer],
    expression: npt.NDArray[np.integer],
    intensity: npt.NDArray[np.floating] | None = None,
    time_s: npt.NDArray[np.floating] | None = None,
    identity: str | None = None,
    source: str,
) -> pa.Table:
    """Return the rows of one person in one video as a table of `SCHEMA`.

    Args:
        frames: (N,) 1-based, ascending.
        images: N JPEG files.
        au: (N, 12) of 0, 1, −1.
        expression: (N,) class index or −1.
        intensity: (N, 12) in 0 … 1; None without an annotation.
        time_s: (N,) media time, NaN where unknown; None if all are unknown.
    """
    count = len(images)
    return pa.table(
        [
            pa.repeat(video_id, count),
            pa.repeat(person, count),
            pa.array(frames, pa.int32()),
            pa.nulls(count, pa.float64()) if time_s is None else pa.array(time_s, pa.float64(), from_pandas=True),
            pa.array(images, pa.binary()),
            columns.from_arrays(au, SCHEMA.field("au").type, count),
            columns.from_arrays(intensity, SCHEMA.field("intensity").type, count),
            pa.array(expression, pa.int8()),
            pa.repeat(pa.scalar(identity, pa.string()), count),
            pa.repeat(source, count),
        ],
        schema=SCHEMA,
    )


class ShardWriter:
    """A writer of one Parquet file in memory. It needs the memory of the finished file plus one row group."""

    def __init__(self) -> None:
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            SCHEMA,
            compression="zstd",
            use_dictionary=["video_id", "person", "identity", "source"],
            write_statistics=["video_id", "frame"],
        )
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._spans: list[dict[str, str | int]] = []
        self._counts = SplitCounts().model_dump(exclude={"videos"})
        self._outcomes: dict[str, Counter[str]] = {}
        self._bad_lines: list[str] = []

    def add(self, table: pa.Table) -> None:
        """Append rows of one person of one video (see `rows`)."""
        if not table.num_rows:
            return
        self._count(table)
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows >= ROW_GROUP_ROWS:
            self._flush(self._pending_rows - self._pending_rows % ROW_GROUP_ROWS)

    def count_outcomes(self, track: str, counts: Mapping[str, int], bad_lines: Iterable[str] = ()) -> None:
        """Record the outcomes of the annotation rows of `track` (VIDEO, VIDEO_left …).

        Args:
            counts: "au.rows" and "expr.rows" (all rows), "au.kept" and "expr.kept" (rows in the store); all other keys
                are reasons of dropped rows.
            bad_lines: "FILE:LINE problem".
        """
        self._outcomes.setdefault(track, Counter()).update(counts)
        self._bad_lines.extend(bad_lines)

    def finish(self) -> bytes:
        """Return the bytes of the finished file."""
        self._flush(self._pending_rows)
        footer = {
            "spans": self._spans,
            "counts": self._counts,
            "outcomes": {track: dict(sorted(c.items())) for track, c in self._outcomes.items()},
            "bad_lines": self._bad_lines[:MAX_BAD_LINES],
        }
        self._writer.add_key_value_metadata({_FOOTER.decode(): json.dumps(footer, sort_keys=True)})
        self._writer.close()
        return bytes(self._sink.getvalue())

    def _flush(self, count: int) -> None:
        """Write the first `count` pending rows as row groups of ROW_GROUP_ROWS, the last one possibly smaller."""
        if not count:
            return
        pending = pa.concat_tables(self._pending)
        self._writer.write_table(pending.slice(0, count), row_group_size=ROW_GROUP_ROWS)
        rest = pending.slice(count)
        self._pending, self._pending_rows = ([rest] if rest.num_rows else []), rest.num_rows

    def _count(self, table: pa.Table) -> None:
        video_id, person = table["video_id"][0].as_py(), table["person"][0].as_py()
        last = self._spans[-1] if self._spans else None
        if last and (last["video_id"], last["person"]) == (video_id, person):
            last["rows"] = int(last["rows"]) + table.num_rows
        else:
            self._spans.append({"video_id": video_id, "person": person, "rows": table.num_rows})
        au = columns.labels(table)
        expression = table["expression"].to_numpy()
        known = expression[expression >= 0]
        counts = self._counts
        counts["rows"] += table.num_rows
        counts["au_rows"] += int((au != facs.UNKNOWN).any(axis=1).sum())
        for column, name in enumerate(facs.AUS):
            counts["au_valid"][name] += int((au[:, column] != facs.UNKNOWN).sum())
            counts["au_positives"][name] += int((au[:, column] == 1).sum())
        counts["expression_rows"] += len(known)
        counts["expressions"] = [
            int(before + now)
            for before, now in zip(
                counts["expressions"], np.bincount(known, minlength=len(facs.EXPRESSIONS)), strict=True
            )
        ]


def audio_name(video_id: str) -> str:
    return f"audio/{video_id}.parquet"


def audio_mark(video_id: str, key: str) -> str:
    """Return the name of the mark beside the audio file of a base video. `key` identifies the video file."""
    return f"audio/{video_id}.{hashlib.sha256(key.encode()).hexdigest()[:16]}{MARK}"


def audio_file(video_id: str, blocks: Iterable[AudioBlock]) -> bytes:
    """Return the audio file of a base video, without rows if it has no audio."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, AUDIO_SCHEMA, compression="zstd") as writer:
        for block in blocks:
            row = [[video_id], [block.rate_hz], [block.start_s], [len(block.samples)], [block.samples.reshape(-1)]]
            writer.write_table(pa.table(row, schema=AUDIO_SCHEMA))
    return bytes(sink.getvalue())


def shard_name(split: str, ordinal: int, *keys: str) -> str:
    """Return the name of a split's shard number `ordinal`. `keys` identify all inputs on which its bytes depend."""
    digest = hashlib.sha256("\0".join((SCHEMA_VERSION, split, *keys)).encode()).hexdigest()[:16]
    return f"split={split}/{ordinal:05d}-{digest}.parquet"


def finish(
    storage: Storage,
    header: StoreHeader,
    names: Sequence[str],
    outcomes: Mapping[str, Mapping[str, int]] | None = None,
) -> StoreCard:
    """Compute the card from the footers of the shards `names`, write store.json, and delete all other shards.

    The card comes first: a job that is refused or ends in between leaves a store that can be read.

    Args:
        outcomes: outcomes by track in addition to those of the shards, as in `ShardWriter.count_outcomes`.

    Raises:
        DatasetError: a split has shards but no rows.
    """
    shards: list[Shard] = []
    counts: dict[str, dict[str, Any]] = {}
    videos: dict[str, set[str]] = {}
    tracks = {track: Counter(tally) for track, tally in (outcomes or {}).items()}
    bad_lines: list[str] = []
    ordered = sorted(names)
    with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
        footers = list(pool.map(lambda name: _footer(storage, name), ordered))
    for name, footer in zip(ordered, footers, strict=True):
        split = name.partition("/")[0].removeprefix("split=")
        spans = tuple(TrackSpan(**span) for span in footer["spans"])
        shards.append(Shard(name=name, split=split, rows=footer["counts"]["rows"], spans=spans))
        counts[split] = _add(counts[split], footer["counts"]) if split in counts else footer["counts"]
        videos.setdefault(split, set()).update(span.video_id for span in spans)
        for track, tally in footer["outcomes"].items():
            tracks.setdefault(track, Counter()).update(tally)
        bad_lines.extend(footer["bad_lines"])
    splits = {split: SplitCounts(videos=len(videos[split]), **count) for split, count in counts.items()}
    train = splits.get("train", SplitCounts())
    total: Counter[str] = sum(tracks.values(), Counter())
    for split, found in splits.items():
        if not found.rows and split != TEST:  # a test set without faces hinders no training
            reasons = ", ".join(f"{key} {count}" for key, count in _dropped(total).items())
            invalid = f"; the first invalid line: {bad_lines[0]}" if bad_lines else ""
            raise DatasetError(
                f"the {split} split is empty, all of its annotation rows were dropped ({reasons}){invalid}"
            )
    card = StoreCard(
        **header.model_dump(),
        splits=splits,
        positive_rates={
            au: train.au_positives[au] / train.au_valid[au] if train.au_valid[au] else None for au in facs.AUS
        },
        annotations=dict(sorted(total.items())),
        dropped=_dropped(total),
        mismatches={track: lost for track, tally in sorted(tracks.items()) if (lost := _dropped(tally))},
        bad_lines=tuple(bad_lines[:MAX_BAD_LINES]),
        shards=tuple(shards),
    )
    storage.write(CARD, card.model_dump_json(indent=1).encode())
    kept = set(names)
    written = storage.names("", ".parquet")
    storage.delete_many([name for name in written if name.startswith("split=") and name not in kept])
    return card


def _dropped(tally: Mapping[str, int]) -> dict[str, int]:
    return {key: count for key, count in sorted(tally.items()) if count and not key.endswith((".rows", ".kept"))}


def _footer(storage: Storage, name: str) -> dict[str, Any]:
    with damage_named(storage.path(name)), storage.open(name) as file:
        return json.loads(pq.ParquetFile(file).metadata.metadata[_FOOTER])


def _add(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Return the element-wise sum of nested counts."""
    result: dict[str, Any] = {}
    for key, value in left.items():
        other = right[key]
        if isinstance(value, dict):
            result[key] = {name: value[name] + other[name] for name in value}
        elif isinstance(value, list):
            result[key] = [a + b for a, b in zip(value, other, strict=True)]
        else:
            result[key] = value + other
    return result
