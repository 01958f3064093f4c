"""Packets of short videos: one task annotates all videos of a packet, from their bytes to one commit of their tables.

Features and marks of each video cost more than the video itself if it has a few frames only. A packet keeps features in
memory, writes one mark, runs the models on crops of several videos together, and commits one entry of the ledger. If
its worker dies, the next attempt marks each video, so that only the one that crashes its worker is quarantined.
"""

from __future__ import annotations

import gc
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.extract import PART_CROPS
from aupipe.annotation.faults import contain_fault
from aupipe.annotation.features import Embeddings
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.model_stages import Encode, EncodedPart, Finalize, Tables
from aupipe.annotation.pending import Pending, PendingVideo
from aupipe.annotation.retry import Unwatched, Watchdog, guard
from aupipe.annotation.settings import LimitsConfig, content_hash
from aupipe.annotation.stages import USUAL_FRAME_PX, Decode, DecodedPart, Row, SegmentTask
from aupipe.annotation.video_rows import LazyList
from aupipe.annotation.work_plan import Spent
from aupipe.faces import CROP_SIZE_PX
from aupipe.media.byte_source import read_once
from aupipe.storage import Storage

# A packet has about 1/256 of the frames of all short videos, so that workers are equally busy, and at least
# `_LEAST_FRAMES`, about the work of a segment. The number of workers changes neither packets nor tables.
_PACKETS, _LEAST_FRAMES = 256, 600
_VIDEOS = 64  # of a packet, at most
_CROP_BYTES = CROP_SIZE_PX * CROP_SIZE_PX * 3
_UNLIMITED = {"attempts": 10**9, "kills": 10**9}  # A packet is never given up; its videos are.


@dataclass(frozen=True)
class Packet:
    """Videos that are annotated together.

    Attributes:
        generation: of the run.
    """

    generation: int
    pending: Pending

    @cached_property
    def videos(self) -> list[PendingVideo]:
        """The record of each video, and its segments with their keys."""
        return self.pending.take(np.arange(len(self.pending.ids)))

    @property
    def key(self) -> str:
        """The name of its marks, which contains a dot as that of a segment does."""
        return f"packet.{content_hash([key for _, segments in self.videos for key, _ in segments])[:32]}"

    @property
    def frames(self) -> int:
        """The expected number of frames."""
        return int(self.pending.frames.sum())

    def to_row(self) -> Row:
        """Return the packet as a row."""
        return {"generation": self.generation, "videos": self.pending.to_bytes()}

    @classmethod
    def from_row(cls, row: Row, keys: CacheKeys) -> Packet:
        """Read the packet from a row."""
        return cls(row["generation"], Pending.from_bytes(row["videos"], keys))


@dataclass(frozen=True)
class PacketResult:
    """The result of `AnnotatePacket`.

    Attributes:
        frames: number of frames of the committed videos.
        reasons: of the failed videos, by video_id.
        spent: the costs, by video_id.
        stages: seconds of each stage.
    """

    video_ids: list[str]
    frames: int
    reasons: dict[str, str]
    spent: dict[str, Spent]
    stages: dict[str, float] = field(default_factory=dict)

    def to_row(self) -> Row:
        """Return the result as a row."""
        return {"result": json.dumps(asdict(self))}

    @classmethod
    def from_row(cls, row: Row) -> PacketResult:
        """Read the result from a row."""
        result = json.loads(row["result"])
        spent = {video_id: (work_s, attempts) for video_id, (work_s, attempts) in result["spent"].items()}
        return cls(**result | {"spent": spent})


def plan_packets(pending: Pending, max_frames: int, generation: int) -> tuple[Sequence[Packet], np.ndarray]:
    """Return packets of the short videos, ordered by video_id, and the rows of these videos.

    Videos that do not fit in a packet are left out, and those whose frames need workers with more memory.

    Args:
        max_frames: of a packet; 0: no packets.
    """
    frames = np.maximum(pending.frames, 1)
    short = frames[frames <= max_frames]
    limit = min(max_frames, max(_LEAST_FRAMES, int(short.sum()) // _PACKETS))
    rows = np.flatnonzero((frames <= limit) & (pending.frame_px <= USUAL_FRAME_PX))
    edges: list[int] = []
    room = 0
    for number, count in enumerate(frames[rows].tolist()):
        if count > room or number - edges[-1] == _VIDEOS:
            edges.append(number)
            room = limit
        room -= count
    edges.append(len(rows))

    def packet(number: int) -> Packet:
        return Packet(generation, pending.subset(rows[edges[number] : edges[number + 1]]))

    return LazyList(len(edges) - 1, packet), rows


class AnnotatePacket:
    """The stage that annotates the videos of a packet and commits their tables. A video that fails is left out."""

    def __init__(self, keys: CacheKeys, storage: Storage, device: str = "cpu", guarded: bool = True) -> None:
        models, config = keys.models, keys.config
        self._keys, self._storage, self._limits = keys, storage, config.limits
        self._decode = Decode(config, storage, models.templates, guarded)
        self._encode = _EncodeInMemory(models, storage, config.batch_size, device)
        self._finalize = Finalize(models.heads, storage, config, keys.decision)
        self._attempt = guard(guarded)

    def __call__(self, row: Row) -> Row:
        packet = Packet.from_row(row, self._keys)
        unlimited = self._limits.model_copy(update=_UNLIMITED)
        with self._attempt(self._storage, packet.key, unlimited, self._limits.stall_s) as watch:
            watch.pause()
            result = self._annotate(packet, watch)
        # PyAV leaves reference cycles, which Python collects rarely.
        gc.collect()
        return result.to_row()

    def _annotate(self, packet: Packet, watch: Watchdog | Unwatched) -> PacketResult:
        encoded: dict[str, list[EncodedPart]] = defaultdict(list)
        self._encode.tables.clear()
        for batch in _batches(self._parts(packet, watch)):
            for part in self._encode(batch).to_pylist():
                encoded[part["video_id"]].append(EncodedPart.from_row(part))
        start = time.monotonic()
        finished: list[Tables] = []
        reasons: dict[str, str] = {}
        spent: dict[str, Spent] = {}
        for planned, segments in packet.videos:
            parts = encoded[planned.video_id]
            spent[planned.video_id] = sum(part.work_s for part in parts), max(part.attempts for part in parts)
            lost = [part.lost for part in parts if part.lost]
            failed = [part.error for part in parts if part.error] or (lost if len(lost) == len(segments) else [])
            if failed:
                reasons[planned.video_id] = failed[0]
                continue
            with contain_fault(self._storage, planned.video_id) as outcome:
                work_s, attempts = spent[planned.video_id]
                losses = (*planned.losses, *sorted(set(lost)))
                record = replace(
                    planned, losses=losses, work_s=work_s, attempts=max(planned.attempts or 1, attempts)
                )  # fmt: skip
                video = Embeddings.of_parts([part for key, _ in segments for part in self._encode.tables[key]])
                finished.append(self._finalize.tables(record, video))
            if outcome.reason:
                reasons[planned.video_id] = outcome.reason
        reasons |= self._finalize.commit(finished, packet.generation)
        self._encode.tables.clear()
        every = [part for parts in encoded.values() for part in parts]
        stages = Counter({"encode": sum(part.encode_s for part in every), "finalize": time.monotonic() - start})
        for part in every:
            stages.update(part.stages)
        frames = sum(part.frames for part in every)
        return PacketResult([record.video_id for record, _ in packet.videos], frames, reasons, spent, dict(stages))

    def _parts(self, packet: Packet, watch: Watchdog | Unwatched) -> Iterator[DecodedPart]:
        """Yield the parts of all videos. After the first failure of a video, its other segments are skipped."""
        # A first attempt shares the mark of the packet. Later ones find the video that ends the worker.
        attempt = self._attempt if watch.number > 1 else partial(_shared, watch)
        for _, segments in packet.videos:
            with read_once(segments[0][1].uri):
                for key, segment in segments:
                    failed = False
                    for part in self._decode.parts(SegmentTask(key, segment), attempt):
                        failed = bool(part.error)
                        yield part
                    if failed:
                        break


class _EncodeInMemory(Encode):
    """`Encode`, with the features in memory: `tables` has those of each segment by its key, in order."""

    def __init__(self, models: ModelSet, storage: Storage, batch_size: int, device: str) -> None:
        super().__init__(models, storage, batch_size, device)
        self.tables: dict[str, list[pa.Table]] = defaultdict(list)

    def _keep(self, part: DecodedPart, rows: pa.Table) -> None:
        self.tables[part.key].append(rows)


def _batches(parts: Iterator[DecodedPart]) -> Iterator[pa.Table]:
    """Yield the parts in tables of about `PART_CROPS` crops, or so many parts."""
    rows: list[Row] = []
    size = 0
    for part in parts:
        rows.append(part.to_row())
        size += len(part.crops)
        if size >= PART_CROPS * _CROP_BYTES or len(rows) >= PART_CROPS:
            yield pa.Table.from_pylist(rows)
            rows, size = [], 0
    if rows:
        yield pa.Table.from_pylist(rows)


@contextmanager
def _shared(
    watch: Watchdog | Unwatched, storage: Storage, unit: str, limits: LimitsConfig, stall_s: float
) -> Iterator[Watchdog | Unwatched]:
    """Work on a video in the block under the mark and the watchdog of its packet."""
    watch.resume()
    try:
        yield watch
    finally:
        watch.pause()
