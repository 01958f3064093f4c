"""Workers that decode nothing, for an archive of any size: they return and write what real ones would.

Probing returns what it would find in a file of that kind, and a video has one row instead of one row per frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from aupipe.annotation import features, ledger_entries, retry
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input
from aupipe.annotation.model_stages import EncodedPart, Group, VideosResult
from aupipe.annotation.packets import Packet, PacketResult
from aupipe.annotation.pending import pending_video
from aupipe.annotation.schema import EVENTS, FEATURES, FRAMES, to_parquet
from aupipe.annotation.segments import cut_into_segments
from aupipe.annotation.stages import ProbeRequest, ProbeResult, Row, SegmentTask
from aupipe.annotation.video_record import VideoRecord
from aupipe.media.probe import VideoInfo
from aupipe.storage import Storage

FPS, _KEY_FRAMES = 25, 50  # frames per second, and frames from one key frame to the next
_WORKERS_ON_S3 = 16


def durations_s(seconds: float, minutes: float) -> dict[str, float]:
    """Return the length of a file of each kind, which is the folder that it is in."""
    return {"clip": seconds, "long": 60.0 * minutes}


class Workers:
    """A runner whose workers decode nothing. Their results pass through rows, as on a cluster."""

    decoders, encoders = 1, 0

    def __init__(
        self, keys: CacheKeys, storage: Storage, seconds: float, minutes: float,
        ends: Callable[[str], None] = lambda phase: None, working: Callable[[], Any] = nullcontext,
    ) -> None:  # fmt: skip
        self._keys, self._storage, self._ends, self._working = keys, storage, ends, working
        self._durations_s = durations_s(seconds, minutes)
        config = keys.config
        self._segments = {
            kind: cut_into_segments(
                Input("", ""), _video(duration_s), config.segment_s, config.alignment.smoothing_radius,
                max_gap_s=config.effective_tracking.max_gap_s,
            )
            for kind, duration_s in self._durations_s.items()
        }  # fmt: skip
        self._frames, self._features = _row(FRAMES), to_parquet(_row(FEATURES), FEATURES)

    def probe(self, rows: Sequence[Row]) -> Iterator[Row]:
        for row in rows:
            with self._working():
                result = self._probed(ProbeRequest.from_row(row).video).to_row()
            yield result
        self._ends("probe")

    def _probed(self, video: Input) -> ProbeResult:
        kind = video.video_id.partition("/")[0]
        segments = [replace(each, uri=video.uri, video_id=video.video_id) for each in self._segments[kind]]
        digest = hashlib.sha256(video.video_id.encode()).hexdigest()
        record = VideoRecord(
            video.uri, video.video_id, fingerprint=digest, source_hash=digest,
            frames_expected=sum(segment.frames for segment in segments), duration_s=self._durations_s[kind], rotation=0,
            variable_frame_rate=False, frame_width=1280, frame_height=720, pixel_aspect="1:1", hdr="", track=0,
            tracks=1, clock_restarts=0, remark="",
        )  # fmt: skip
        return ProbeResult(video.video_id, record=record, segments=segments)

    def annotate_packets(self, packets: Sequence[Packet]) -> Iterator[Row]:
        return self._phase("plan", "annotate", self._annotated, packets)

    def _annotated(self, row: Row) -> Row:
        packet = Packet.from_row(row, self._keys)
        with retry.attempt(self._storage, packet.key, self._keys.config.limits, 60.0):
            videos = [
                known or pending_video(video, self._probed(video), self._keys)
                for video, known in packet.pending.sources()
            ]
            records = [self._done(record) for record, _ in videos]
            self._commit(records, packet.generation)
        spent = {record.video_id: (record.work_s or 0.0, 1) for record in records}
        frames = sum(record.frames_expected or 0 for record in records)
        is_small = not packet.pending.is_probed.all()
        return PacketResult(list(spent), frames, {}, spent, is_small=is_small, expected=packet.frames).to_row()

    def extract(self, tasks: Sequence[SegmentTask]) -> Iterator[Row]:
        return self._phase("plan", "extract", self._extracted, tasks)

    def _extracted(self, row: Row) -> Row:
        task = SegmentTask.from_row(row)
        with retry.attempt(self._storage, task.key, self._keys.config.limits, 60.0):
            self._storage.write(features.part_name(task.key, 0, True), self._features)
        video_id, frames = task.segment.video_id, task.segment.frames
        return EncodedPart(task.key, video_id, "", "", 1, frames * self._frame_s, True, frames).to_row()

    def finalize(self, groups: Sequence[Group]) -> Iterator[Row]:
        return self._phase("group", "finalize", self._finalized, groups)

    def _finalized(self, row: Row) -> Row:
        group = Group.from_row(row)
        self._commit([self._done(record) for record in group.records], group.generation)
        return VideosResult([record.video_id for record in group.records], {}).to_row()

    def _phase(
        self, before: str, name: str, work: Callable[[Row], Row], given: Sequence[Packet | SegmentTask | Group]
    ) -> Iterator[Row]:
        """Yield the results of a phase, which follows the phase `before`."""
        rows = [each.to_row() for each in given]  # as for Ray, which holds the rows of all
        self._ends(before)
        yield from self._results(work, rows)
        self._ends(name)

    def _results(self, work: Callable[[Row], Row], rows: Sequence[Row]) -> Iterator[Row]:
        """Yield the results of the workers. Those on S3 wait for most of their time, so several work at a time."""
        with nullcontext() if self._storage.local else ThreadPoolExecutor(_WORKERS_ON_S3) as pool:
            results = map(work, rows) if pool is None else pool.map(work, rows)
            while True:
                with self._working():
                    result = next(results, None)
                if result is None:
                    return
                yield result

    def extract_audio(self, rows: Sequence[Row]) -> list[Row]:
        raise AssertionError("the default models use no audio")

    def export(self, rows: Sequence[Row], forms: tuple[str, ...]) -> list[Row]:
        raise AssertionError("this job exports nothing")

    @contextmanager
    def reserved(self, segments: int) -> Iterator[None]:
        yield

    @property
    def _frame_s(self) -> float:
        return self._keys.config.cost.frame_cpu_s

    def _done(self, record: VideoRecord) -> VideoRecord:
        frames = record.frames_expected or 0
        return replace(
            record, status="ok", reason="", frames_decoded=frames, frames_lost=0, frames_corrupt=0, faces=1,
            work_s=frames * self._frame_s,
        )  # fmt: skip

    def _commit(self, records: Sequence[VideoRecord], generation: int) -> None:
        ids = pa.array([record.video_id for record in records])
        frames = pa.concat_tables([self._frames] * len(records)).set_column(0, "video_id", ids)
        rows_per_file = self._keys.config.rows_per_file
        ledger_entries.commit(self._storage, frames, EVENTS.empty_table(), records, generation, rows_per_file)


def _row(schema: pa.Schema) -> pa.Table:
    """Return a table with one row, whose only value is its frame."""
    return pa.Table.from_pylist([{"frame": 0}], schema)


def _video(duration_s: float) -> VideoInfo:
    """Return the video track of a file of this length."""
    pts = np.arange(max(1, round(duration_s * FPS)), dtype=np.int64)
    return VideoInfo(
        codec="h264", container="mp4", width_px=1280, height_px=720, track=0, tracks=1, rotation=0,
        pixel_aspect=Fraction(1), hdr="", time_base=Fraction(1, FPS), start_s=0.0, duration_s=duration_s,
        frames_expected=len(pts), missing=0, missing_s=0.0, damage="", loss_if_corrupt="", remark="", pts=pts,
        leading=0, exact=True, by_order=False, restarts=(), key_pts=pts[::_KEY_FRAMES], variable_frame_rate=False,
        audio=None,
    )  # fmt: skip
