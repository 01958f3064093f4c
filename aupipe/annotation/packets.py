"""Packets of short videos: one task annotates all videos of a packet, from their bytes to one commit of their tables.

Features and marks of each video cost more than the video itself if it has a few frames only. A packet keeps features in
memory, writes one mark, runs the models on crops of several videos together, and commits one entry of the ledger. If
its worker dies, the next attempt marks each video, so that only the one that crashes its worker is quarantined.

Small files (see `small_files`) are probed here too. Those that turn out to be long, or to fill the packet, are left.
"""

from __future__ import annotations

import gc
import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa

from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import EncodersElsewhere
from aupipe.annotation.extract import PART_CROPS
from aupipe.annotation.faults import contain_fault
from aupipe.annotation.features import Embeddings
from aupipe.annotation.inputs import Input
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.model_stages import Encode, EncodedPart, Finalize, Tables
from aupipe.annotation.pending import Pending, PendingVideo, pending_video
from aupipe.annotation.retry import Attempt, Unwatched, Watchdog, guard
from aupipe.annotation.settings import LimitsConfig, content_hash
from aupipe.annotation.stages import USUAL_FRAME_PX, Decode, DecodedPart, Probe, ProbeResult, Row, SegmentTask
from aupipe.annotation.video_rows import LazyList
from aupipe.annotation.work_plan import Spent
from aupipe.faces import CROP_SIZE_PX
from aupipe.media.byte_source import read_once
from aupipe.storage import Storage

# A packet has about 1/256 of the frames of all short videos, so that workers are equally busy, and at least
# `_LEAST_FRAMES`, about the work of a segment. The number of workers changes neither packets nor tables.
_PACKETS, _LEAST_FRAMES = 256, 600
MAX_VIDEOS = 64  # of a packet
_BATCHES_ELSEWHERE = 1  # that an encoder in another process has while the next one is decoded
# A small file with up to so many frames has a packet of its own if it fits in no other; with segments it would be read
# several times. Frames of small files are estimated, and a packet takes up to `_TAKEN` times the estimate, and at least
# this number, if `packet_frames` allows it.
_ALONE_FRAMES, _TAKEN = 4000, 4
# The last eighth of the frames, of `_PACKETS` packets at most, is in packets of a quarter of the size, so that all
# workers are busy until the end.
_LAST, _LAST_SIZE = 1 / 8, 1 / 4
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

    @property
    def key(self) -> str:
        """The name of its marks, which contains a dot as that of a segment does."""
        return f"packet.{content_hash(self.pending.ids.to_pylist())[:32]}"

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
        frames: number of frames that were decoded or lost.
        reasons: of the failed videos, by video_id.
        spent: the costs, by video_id, of the videos that were decoded.
        stages: seconds of each stage.
        is_small: the packet has small files, which were probed here.
        expected: the number of frames that were expected; an estimate if it has small files.
        unread: reasons of small files that could not be probed, by video_id.
        left: rows of the results of probing small files that can be annotated and were not.
        twins: small files with the same bytes as an earlier one of the packet, and its video_id.
        encoder_s: seconds of encoders in other processes.
    """

    video_ids: list[str]
    frames: int
    reasons: dict[str, str]
    spent: dict[str, Spent]
    stages: dict[str, float] = field(default_factory=dict)
    is_small: bool = False
    expected: int = 0
    unread: dict[str, str] = field(default_factory=dict)
    left: list[Row] = field(default_factory=list)
    twins: dict[str, str] = field(default_factory=dict)
    encoder_s: float = 0.0

    def to_row(self) -> Row:
        """Return the result as a row."""
        return {"result": json.dumps(asdict(self))}

    @classmethod
    def from_row(cls, row: Row) -> PacketResult:
        """Read the result from a row."""
        result = json.loads(row["result"])
        spent = {video_id: (work_s, attempts) for video_id, (work_s, attempts) in result["spent"].items()}
        return cls(**result | {"spent": spent})


def plan_packets(
    pending: Pending, max_frames: int, generation: int, same_size: np.ndarray | None = None
) -> tuple[Sequence[Packet], np.ndarray]:
    """Return packets of the short videos, the longest packets first, and the rows (n,) of these videos.

    Videos that do not fit in a packet are left out, and those whose frames need workers with more memory.

    Args:
        max_frames: of a packet; 0: no packets.
        same_size: of small files, (n,) the first row of a file of the same size, which is in the same packet; None:
            packets of the videos that were probed.
    """
    frames = np.maximum(pending.frames, 1)
    small = same_size is not None
    unit = np.arange(len(frames)) if same_size is None else same_size
    is_due = pending.is_probed != small
    together = np.bincount(unit, frames, len(frames)).astype(np.int64)
    short = frames[is_due & (together[unit] <= max_frames)]
    limit = min(max_frames, max(_LEAST_FRAMES, int(short.sum()) // _PACKETS))
    longest = min(max_frames, max(limit, _ALONE_FRAMES)) if small else limit
    videos = np.bincount(unit, minlength=len(frames))
    fits = is_due & (together[unit] <= longest) & (videos[unit] <= MAX_VIDEOS)
    rows = np.flatnonzero(fits & (pending.frame_px <= USUAL_FRAME_PX))
    rows = rows[np.argsort(unit[rows], kind="stable")]
    edges, sizes = list[int](), list[int]()  # of packets: the first of `rows`, and the number of frames
    stop, left = 0, int(frames[rows].sum())
    at_end = min(left, limit * _PACKETS) * _LAST
    units = np.unique(unit[rows])
    for count, size in zip(videos[units].tolist(), together[units].tolist(), strict=True):
        room = limit if left > at_end else limit * _LAST_SIZE
        if not sizes or sizes[-1] + size > room or stop + count - edges[-1] > MAX_VIDEOS:
            edges.append(stop)
            sizes.append(0)
        sizes[-1] += size
        stop += count
        left -= size
    edges.append(stop)
    order = np.argsort(-np.array(sizes, np.int64), kind="stable")

    def packet(number: int) -> Packet:
        first, last = edges[order[number] : order[number] + 2]
        return Packet(generation, pending.subset(np.sort(rows[first:last])))

    return LazyList(len(sizes), packet), np.sort(rows)


class AnnotatePacket:
    """The stage that annotates the videos of a packet and commits their tables. A video that fails is left out."""

    def __init__(
        self, keys: CacheKeys, storage: Storage, device: str = "cpu", guarded: bool = True,
        elsewhere: EncodersElsewhere | None = None,
    ) -> None:  # fmt: skip
        """Create the stage.

        Args:
            elsewhere: encoders which work while this process decodes; None: they are in this process, on the device.
        """
        models, config = keys.models, keys.config
        self._keys, self._storage, self._limits = keys, storage, config.limits
        self._max_frames = config.packet_frames
        self._probe = Probe(config, storage, guarded)
        self._decode = Decode(config, storage, models.templates, guarded)
        self._encode = _EncodeInMemory(models, storage, config.batch_size, device, elsewhere)
        self._elsewhere = elsewhere
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
        taken = _Taken(max(_TAKEN * packet.frames, min(self._max_frames, _ALONE_FRAMES)))
        encoder_s = self._encoder_s
        for batch in self._encoded(_batches(self._parts(packet, watch, taken))):
            for part in batch.to_pylist():
                encoded[part["video_id"]].append(EncodedPart.from_row(part))
        start = time.monotonic()
        finished: list[Tables] = []
        reasons: dict[str, str] = {}
        spent: dict[str, Spent] = {}
        for planned, segments in taken.videos:
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
        own_encode_s = 0.0 if self._elsewhere else sum(part.encode_s for part in every)
        stages = Counter({"encode": own_encode_s, "finalize": time.monotonic() - start})
        for part in every:
            stages.update(part.stages)
        frames = sum(part.frames for part in every)
        done = {record.video_id for record, _ in taken.videos if record.video_id not in reasons}
        left = [result.to_row() for video_id, result in taken.results.items() if video_id not in done]
        return PacketResult(
            packet.pending.ids.to_pylist(), frames, reasons, spent, dict(stages), not packet.pending.is_probed.all(),
            packet.frames, taken.unread, left, taken.twins, self._encoder_s - encoder_s,
        )  # fmt: skip

    @property
    def _encoder_s(self) -> float:
        return self._elsewhere.work_s if self._elsewhere else 0.0

    def _encoded(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Encode the batches. If that happens elsewhere, the next one is decoded meanwhile."""
        if not self._elsewhere:
            yield from map(self._encode, batches)
            return
        with ThreadPoolExecutor(1) as thread:
            waiting: deque[Future[pa.Table]] = deque()
            for batch in batches:
                waiting.append(thread.submit(self._encode, batch))
                if len(waiting) > _BATCHES_ELSEWHERE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _parts(self, packet: Packet, watch: Watchdog | Unwatched, taken: _Taken) -> Iterator[DecodedPart]:
        """Yield the parts of the videos that are annotated. A segment is skipped if one before it failed."""
        # A first attempt shares the mark of the packet. Later ones find the video that ends the worker.
        attempt = self._attempt if watch.number > 1 else partial(_shared, watch)
        for video, known in packet.pending.sources():
            with read_once(video.uri):
                planned = known or self._probed(video, attempt, taken)
                if planned is None:
                    continue
                taken.videos.append(planned)
                for key, segment in planned[1]:
                    failed = False
                    for part in self._decode.parts(SegmentTask(key, segment), attempt):
                        failed = bool(part.error)
                        yield part
                    if failed:
                        break

    def _probed(self, video: Input, attempt: Attempt, taken: _Taken) -> PendingVideo | None:
        """Probe a small file. Return its record and segments, or None if it is not annotated here."""
        result = self._probe.result(video, attempt)
        if result.record is None:
            taken.unread[video.video_id] = result.reason
            return None
        taken.results[video.video_id] = result
        first = taken.sources.setdefault(result.record.source_hash, video.video_id)
        frame_px = (result.record.frame_width or 0) * (result.record.frame_height or 0)
        frames = max(1, result.record.frames_expected or 0)
        if first != video.video_id:
            taken.twins[video.video_id] = first
        elif frames <= taken.room and frame_px <= USUAL_FRAME_PX:
            taken.room -= frames
            return pending_video(video, result, self._keys)
        return None


@dataclass
class _Taken:
    """The videos of a packet so far.

    Attributes:
        room: number of further frames that are annotated.
        videos: that are annotated.
        results: of probing the small files among them that can be annotated, by video_id.
        unread, twins: see `PacketResult`.
        sources: the video_id of the first one with each source_hash.
    """

    room: int
    videos: list[PendingVideo] = field(default_factory=list)
    results: dict[str, ProbeResult] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)


class _EncodeInMemory(Encode):
    """`Encode`, with the features in memory: `tables` has those of each segment by its key, in order."""

    def __init__(
        self, models: ModelSet, storage: Storage, batch_size: int, device: str, elsewhere: EncodersElsewhere | None
    ) -> None:
        super().__init__(models, storage, batch_size, device, elsewhere)
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
    watch.resume(stall_s)
    try:
        yield watch
    finally:
        watch.pause()
