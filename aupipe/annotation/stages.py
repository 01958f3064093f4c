"""The stages of an annotation that read videos: probe and decode. They import neither torch nor Ray."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from aupipe.annotation.counts import container_losses
from aupipe.annotation.extract import extract
from aupipe.annotation.faults import INPUT_ERRORS, contain_fault
from aupipe.annotation.inputs import Input
from aupipe.annotation.ledger import Record
from aupipe.annotation.preflight import check
from aupipe.annotation.retry import guard
from aupipe.annotation.segments import Segment, cut_into_segments
from aupipe.annotation.settings import AnnotateConfig, content_hash
from aupipe.errors import as_reason
from aupipe.faces.detect import Detector
from aupipe.media.frames import Frame, Span, frames
from aupipe.media.probe import fingerprint, probe
from aupipe.storage import Storage


class Probe:
    """The stage that reads the fingerprint, record and segments of a video, or the reason why it cannot."""

    def __init__(self, config: AnnotateConfig, storage: Storage, guarded: bool = True) -> None:
        self._config, self._storage = config, storage
        self._attempt = guard(guarded)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        video = Input(**json.loads(row["input"]))
        limits, result = self._config.limits, {}
        with contain_fault(self._storage, video.video_id, INPUT_ERRORS) as outcome:
            with self._attempt(
                self._storage, content_hash("probe", video.uri), limits.attempts, limits.probe_s
            ) as watch:
                check(video.uri, limits)
                info = probe(video.uri, limits.frame_px, self._config.media.track, self._config.assume_fps)
                watch.touch()
                record: Record = {
                    "fingerprint": fingerprint(video.uri),
                    "losses": container_losses(info),
                    "duration_s": info.duration_s,
                    "rotation": info.rotation,
                    "variable_frame_rate": info.variable_frame_rate,
                    "frame_width": info.width_px,
                    "frame_height": info.height_px,
                    "pixel_aspect": f"{info.pixel_aspect.numerator}:{info.pixel_aspect.denominator}",
                    "hdr": info.hdr,
                    "track": info.track,
                    "tracks": info.tracks,
                    "clock_restarts": len(info.restarts),
                    "remark": as_reason(info.remark),
                }
                radius, fps = self._config.alignment.smoothing_radius, self._config.sample_fps
                assumed = self._config.assume_fps
                gap_s = self._config.effective_tracking.max_gap_s
                segments = cut_into_segments(video, info, self._config.segment_s, radius, fps, assumed, gap_s)
            record["content"] = record["fingerprint"] + video.asked(fps)
            record["frames_expected"] = sum(segment.frames for segment in segments)
            result = {"record": record, "segments": [asdict(segment) for segment in segments]}
        if outcome.reason:
            result = {"reason": outcome.reason}
        return {"video_id": video.video_id, "result": json.dumps(result)}


def read_probe(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the video_id and the result of `Probe`: {"reason": …} or {"record": …, "segments": [Segment, …]}."""
    result: dict[str, Any] = json.loads(row["result"])
    if "segments" in result:
        result["segments"] = [_segment(fields) for fields in result["segments"]]
    return row["video_id"], result


@dataclass(frozen=True)
class SegmentTask:
    """A segment to extract, and the key of its features."""

    key: str
    segment: Segment

    def to_row(self) -> dict[str, Any]:
        return {"task": json.dumps(asdict(self))}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> SegmentTask:
        task = json.loads(row["task"])
        return cls(task["key"], _segment(task["segment"]))


class Decode:
    """The stage that yields the rows and crops of a segment in parts. After a failure, the last part has the reason."""

    def __init__(self, config: AnnotateConfig, storage: Storage, templates: np.ndarray, guarded: bool = True) -> None:
        self._config, self._storage, self._templates = config, storage, templates
        self._attempt = guard(guarded)

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        task = SegmentTask.from_row(row)
        base = {
            "key": task.key,
            "video_id": task.segment.video_id,
            "error": "",
            "rows": b"",
            "crops": b"",
            "number": 0,
            "last": True,
            "attempts": 1,
        }
        start = time.monotonic()
        with (
            contain_fault(self._storage, task.segment.video_id, INPUT_ERRORS) as outcome,
            self._attempt(self._storage, task.key, self._config.limits.attempts, self._config.limits.stall_s) as watch,
        ):
            images: Iterable[Frame] = watch.through(
                frames(task.segment.uri, task.segment.span, self._config.limits.frame_px)
            )
            if task.segment.sampled_frames is not None:
                images = filter(partial(_is_sampled, frozenset(task.segment.sampled_frames)), images)
            detector, radius = Detector(self._config.detector), self._config.alignment.smoothing_radius
            for part in extract(
                task.segment, images, detector, radius, self._templates, self._config.effective_tracking
            ):
                watch.pause()  # The encoder may take any time.
                yield base | {
                    "rows": _to_ipc(part.rows), "crops": part.crops.tobytes(), "number": part.number,
                    "last": part.last, "attempts": watch.number, "work_s": time.monotonic() - start,
                }  # fmt: skip
                watch.resume()
                start = time.monotonic()
        if outcome.reason:
            yield base | {"error": outcome.reason, "work_s": time.monotonic() - start}
        # PyAV leaves reference cycles, which Python collects rarely; without this call they take 50 MB in three minutes.
        gc.collect()


def _is_sampled(sampled: frozenset[int], frame: Frame) -> bool:
    return frame.index in sampled


def _segment(fields: dict[str, Any]) -> Segment:
    return Segment(**{**fields, "span": Span(**fields["span"])})


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
