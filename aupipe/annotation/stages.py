"""The stages of an annotation that read videos: probe and decode. They import neither torch nor Ray."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from aupipe.annotation.counts import container_losses
from aupipe.annotation.extract import extract, lost_rows
from aupipe.annotation.faults import INPUT_ERRORS, contain_fault
from aupipe.annotation.inputs import Input
from aupipe.annotation.preflight import check
from aupipe.annotation.retry import Attempt, guard
from aupipe.annotation.segments import Segment, cut_into_segments
from aupipe.annotation.settings import AnnotateConfig, content_hash
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import as_reason, redact
from aupipe.faces.detect import Detector
from aupipe.media.byte_source import read_once
from aupipe.media.frames import Frame, frames
from aupipe.media.probe import fingerprint, probe
from aupipe.storage import Storage

Row = dict[str, Any]  # of strings, numbers and bytes, as Ray Data passes it between processes


@dataclass(frozen=True)
class ProbeRequest:
    """A video to probe."""

    video: Input

    def to_row(self) -> Row:
        """Return the request as a row."""
        return {"input": json.dumps({name: getattr(self.video, name) for name in Input.__slots__})}

    @classmethod
    def from_row(cls, row: Row) -> ProbeRequest:
        """Read the request from a row."""
        return cls(Input(**json.loads(row["input"])))


@dataclass(frozen=True)
class ProbeResult:
    """The result of `Probe`.

    Attributes:
        reason: why the video cannot be annotated; "" if it can.
        record: its record before extraction; None if it cannot.
        segments: its segments, in time order; empty if it cannot.
    """

    video_id: str
    reason: str = ""
    record: VideoRecord | None = None
    segments: list[Segment] = field(default_factory=list)

    def to_row(self) -> Row:
        """Return the result as a row."""
        result = {
            "reason": self.reason,
            "record": self.record and self.record.to_row(),
            "segments": [segment.to_row() for segment in self.segments],
        }
        return {"video_id": self.video_id, "result": json.dumps(result)}

    @classmethod
    def from_row(cls, row: Row) -> ProbeResult:
        """Read the result from a row."""
        result = json.loads(row["result"])
        record = result["record"] and VideoRecord.from_row(result["record"])
        return cls(row["video_id"], result["reason"], record, [Segment.from_row(each) for each in result["segments"]])


# The memory of a process that decodes and runs the models. 0.31 GB and 61 bytes per pixel of a frame were measured with
# H.264 of 640×360 to 7680×4320; 10-bit video takes more.
_WORKER_BYTES, _BYTES_PER_PX = 350 * 10**6, 100
USUAL_FRAME_PX = 11_500_000  # 4K and a little more: workers need up to 1.5 GB for it, which nodes have per CPU


def memory_bytes(frame_px: int) -> int:
    """Return the memory that a worker reserves for frames of so many pixels; 0 for up to `USUAL_FRAME_PX`."""
    return _WORKER_BYTES + _BYTES_PER_PX * frame_px if frame_px > USUAL_FRAME_PX else 0


@dataclass(frozen=True)
class SegmentTask:
    """A segment to extract, the key of its features, and `memory_bytes` of its frames."""

    key: str
    segment: Segment
    memory_bytes: int = 0

    def to_row(self) -> Row:
        """Return the task as a row, without its memory, which is for those who start the worker."""
        return {"task": json.dumps({"key": self.key, "segment": self.segment.to_row()})}

    @classmethod
    def from_row(cls, row: Row) -> SegmentTask:
        """Read the task from a row."""
        task = json.loads(row["task"])
        return cls(task["key"], Segment.from_row(task["segment"]))


@dataclass(frozen=True)
class DecodedPart:
    """A part of a segment between `Decode` and `Encode`.

    Attributes:
        key: of the segment.
        number: 0-based within the segment.
        last: the segment ends with this part.
        rows: FEATURES without embeddings, as an Arrow IPC stream.
        crops: (M, T, 112, 112, 3) uint8 RGB, as bytes.
        attempts: the number of this attempt at the segment, from 1.
        work_s: CPU time of this part, about.
        decode_s: the part of it that decodes frames; the rest detects and aligns faces.
        error: the reason why the segment failed; "" if it did not. The part is then without rows.
        lost: the reason why no frame of the segment could be decoded, although the rest of the video may be intact; ""
            if it could. The rows have the status decode_error.
    """

    key: str
    video_id: str
    number: int = 0
    last: bool = True
    rows: bytes = b""
    crops: bytes = b""
    attempts: int = 1
    work_s: float = 0.0
    error: str = ""
    lost: str = ""
    decode_s: float = 0.0

    def to_row(self) -> Row:
        """Return the part as a row."""
        return dict(self.__dict__)

    @classmethod
    def from_row(cls, row: Row) -> DecodedPart:
        """Read the part from a row."""
        return cls(**row)


class Probe:
    """The stage that reads the fingerprint, record and segments of a video, or the reason why it cannot."""

    def __init__(self, config: AnnotateConfig, storage: Storage, guarded: bool = True) -> None:
        self._config, self._storage = config, storage
        self._attempt = guard(guarded)

    def __call__(self, row: Row) -> Row:
        return self.result(ProbeRequest.from_row(row).video, self._attempt).to_row()

    def result(self, video: Input, attempt: Attempt) -> ProbeResult:
        """Probe a video. `attempt` guards the work on it."""
        limits, result = self._config.limits, ProbeResult(video.video_id)
        with contain_fault(self._storage, video.video_id, INPUT_ERRORS) as outcome, read_once(video.uri):
            with attempt(self._storage, content_hash("probe", video.uri), limits, limits.probe_s) as watch:
                check(video.uri, limits)
                info = probe(video.uri, limits.frame_px, self._config.media.track, self._config.assume_fps)
                watch.touch()
                digest = fingerprint(video.uri)
                radius, fps = self._config.alignment.smoothing_radius, self._config.sample_fps
                assumed = self._config.assume_fps
                gap_s = self._config.effective_tracking.max_gap_s
                every = self._config.search.every
                segments = cut_into_segments(video, info, self._config.segment_s, radius, fps, assumed, gap_s, every)
            record = VideoRecord(
                redact(video.uri),
                video.video_id,
                fingerprint=digest,
                source_hash=digest + video.asked(fps),
                losses=tuple(container_losses(info, video.end_s, fps)),
                loss_if_corrupt=info.loss_if_corrupt,
                frames_expected=sum(segment.frames for segment in segments),
                duration_s=info.duration_s,
                rotation=info.rotation,
                variable_frame_rate=info.variable_frame_rate,
                frame_width=info.width_px,
                frame_height=info.height_px,
                pixel_aspect=f"{info.pixel_aspect.numerator}:{info.pixel_aspect.denominator}",
                hdr=info.hdr,
                track=info.track,
                tracks=info.tracks,
                clock_restarts=len(info.restarts),
                remark=as_reason(info.remark),
            )
            result = ProbeResult(video.video_id, record=record, segments=segments)
        return ProbeResult(video.video_id, outcome.reason) if outcome.reason else result


class ProbePacket:
    """The stage that probes several videos and yields a result for each, until a limit in time.

    Videos that it did not reach have no result. Its work is bounded, so that results arrive steadily.
    """

    def __init__(self, probe: Probe, budget_s: float) -> None:
        self._probe, self._budget_s = probe, budget_s

    def __call__(self, row: Row) -> Iterator[Row]:
        start = time.monotonic()
        for request in json.loads(row["requests"]):
            yield self._probe(request)
            if time.monotonic() - start > self._budget_s:
                return

    @staticmethod
    def rows(requests: Sequence[Row], size: int) -> list[Row]:
        """Return the requests in rows of `size`."""
        return [
            {"requests": json.dumps(list(requests[first : first + size]))} for first in range(0, len(requests), size)
        ]


class Decode:
    """The stage that yields the rows and crops of a segment in parts. After a failure, the last part has the reason.

    A segment that is not the whole video and that crashed or stalled its workers costs only its own frames.
    """

    def __init__(self, config: AnnotateConfig, storage: Storage, templates: np.ndarray, guarded: bool = True) -> None:
        self._config, self._storage, self._templates = config, storage, templates
        self._attempt = guard(guarded)

    def __call__(self, row: Row) -> Iterator[Row]:
        for part in self.parts(SegmentTask.from_row(row), self._attempt):
            yield part.to_row()
        # PyAV leaves reference cycles, which Python collects rarely. Without this call they take 50 MB in 3 minutes.
        gc.collect()

    def parts(self, task: SegmentTask, attempt: Attempt) -> Iterator[DecodedPart]:
        """Yield the parts of a segment. `attempt` guards the work on it."""
        video_id, limits = task.segment.video_id, self._config.limits
        start = time.monotonic()
        with (
            contain_fault(self._storage, video_id, INPUT_ERRORS) as outcome,
            attempt(self._storage, task.key, limits, limits.stall_s) as watch,
        ):
            images: Iterable[Frame] = watch.through(frames(task.segment.uri, task.segment.span, limits.frame_px))
            if task.segment.sampled_frames is not None:
                images = _sampled(frozenset(task.segment.sampled_frames), images)
            radius, tracking = self._config.alignment.smoothing_radius, self._config.effective_tracking
            every, timed = self._config.search.every, _Timed(images)
            for part in extract(task.segment, timed, self._detector, radius, self._templates, tracking, every):
                watch.pause()  # The encoder may take any time.
                yield DecodedPart(
                    task.key, video_id, part.number, part.last, _to_ipc(part.rows), part.crops.tobytes(),
                    watch.number, time.monotonic() - start, decode_s=timed.spent_s(),
                )  # fmt: skip
                watch.resume()
                start = time.monotonic()
        work_s = time.monotonic() - start
        if outcome.reason and outcome.worker_died and not task.segment.is_whole:
            yield self._lost(task, outcome.reason, work_s)
        elif outcome.reason:
            yield DecodedPart(task.key, video_id, work_s=work_s, error=outcome.reason)

    @cached_property
    def _detector(self) -> Detector:
        """The detector, built once per process."""
        return Detector(self._config.detector)

    def _lost(self, task: SegmentTask, reason: str, work_s: float) -> DecodedPart:
        """Return the part of a segment of which no frame is decoded. Only the packets are read, for the times."""
        limits, media = self._config.limits, self._config.media
        with contain_fault(self._storage, task.segment.video_id, INPUT_ERRORS) as outcome:
            info = probe(task.segment.uri, limits.frame_px, media.track, self._config.assume_fps)
            rows = lost_rows(task.segment, info)
            return DecodedPart(
                task.key,
                task.segment.video_id,
                rows=_to_ipc(rows),
                work_s=work_s,
                attempts=limits.attempts,
                lost=reason,
            )
        return DecodedPart(task.key, task.segment.video_id, work_s=work_s, error=outcome.reason)


class _Timed:
    """An iterator over frames that measures the time that they take."""

    def __init__(self, images: Iterable[Frame]) -> None:
        self._images, self._spent_s = iter(images), 0.0

    def __iter__(self) -> _Timed:
        return self

    def __next__(self) -> Frame:
        start = time.monotonic()
        try:
            return next(self._images)
        finally:
            self._spent_s += time.monotonic() - start

    def spent_s(self) -> float:
        """Return the seconds since the last call."""
        spent_s, self._spent_s = self._spent_s, 0.0
        return spent_s


def _sampled(indices: frozenset[int], images: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames with these indices. A restart of the clock between two of them is flagged at the second one."""
    restart = False
    for frame in images:
        restart = restart or frame.restart
        if frame.index in indices:
            yield replace(frame, restart=restart)
            restart = False


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
