"""What observing runs on CPU workers: probe a video, decode a segment. Nothing here needs torch: many run at a time."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa

from aupipe.annotation.attempts import attempt
from aupipe.annotation.counts import losses_of
from aupipe.annotation.estimate import check
from aupipe.annotation.inputs import Input
from aupipe.annotation.ledger import Record
from aupipe.annotation.observe import observe
from aupipe.annotation.plan import Segment, cut_into_segments
from aupipe.annotation.settings import AnnotateConfig, key_of
from aupipe.errors import MediaError, in_reason, shown
from aupipe.faces.detect import Detector
from aupipe.media.frames import Frame, Span, frames
from aupipe.media.probe import fingerprint, probe
from aupipe.storage import Storage

# What damaged or hostile input can raise in a worker. Caught in `Probe`, `Decode` and `Listen`, nowhere else; all else
# is our fault or the machine's, and must stop the job.
HOSTILE = (MediaError, av.error.FFmpegError, cv2.error, MemoryError)


def reason_of(error: BaseException) -> str:
    """`code: what happened`, for videos.parquet."""
    code = error.reason if isinstance(error, MediaError) else "decoder_failed"
    return shown(f"{code}: {in_reason(error)}")


class Probe:
    """A video's fingerprint, record and segments, or the reason why it has none."""

    def __init__(self, config: AnnotateConfig, storage: Storage) -> None:
        self._config, self._storage = config, storage

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        video = Input(**json.loads(row["input"]))
        limits = self._config.limits
        try:
            with attempt(self._storage, key_of("probe", video.uri), limits.attempts, limits.probe_s) as watch:
                check(video.uri, limits)
                info = probe(video.uri, limits.frame_px)
                watch.touch()
                record: Record = {
                    "fingerprint": fingerprint(video.uri),
                    "losses": losses_of(info),
                    "duration_s": info.duration_s,
                    "rotation": info.rotation,
                    "variable_frame_rate": info.variable_frame_rate,
                }
                radius, fps = self._config.alignment.smoothing_radius, self._config.sample_fps
                gap_s = self._config.linking.max_gap_s
                segments = cut_into_segments(video, info, self._config.segment_s, radius, fps, gap_s)
        except HOSTILE as error:
            return {"video_id": video.video_id, "result": json.dumps({"reason": reason_of(error)})}
        record["content"] = record["fingerprint"] + video.asked(fps)
        record["frames_expected"] = sum(segment.frames for segment in segments)
        result = {"record": record, "segments": [asdict(segment) for segment in segments]}
        return {"video_id": video.video_id, "result": json.dumps(result)}


def read_probe(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What `Probe` said of a video_id: {"reason": …} or {"record": …, "segments": [Segment, …]}."""
    said: dict[str, Any] = json.loads(row["result"])
    if "segments" in said:
        said["segments"] = [_segment(fields) for fields in said["segments"]]
    return row["video_id"], said


@dataclass(frozen=True)
class SegmentTask:
    """A segment to observe, under the key of what comes out."""

    key: str
    segment: Segment

    def to_row(self) -> dict[str, Any]:
        return {"task": json.dumps(asdict(self))}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> SegmentTask:
        task = json.loads(row["task"])
        return cls(task["key"], _segment(task["segment"]))


class Decode:
    """A segment's rows and crops, a part at a time. A part that could not be decoded carries the reason instead."""

    def __init__(self, config: AnnotateConfig, storage: Storage, templates: np.ndarray) -> None:
        self._config, self._storage, self._templates = config, storage, templates

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
        try:
            with attempt(self._storage, task.key, self._config.limits.attempts, self._config.limits.stall_s) as watch:
                images: Iterable[Frame] = watch.through(
                    frames(task.segment.uri, task.segment.span, self._config.limits.frame_px)
                )
                if task.segment.looked_at is not None:
                    images = filter(partial(_is_looked_at, frozenset(task.segment.looked_at)), images)
                detector, radius = Detector(self._config.detector), self._config.alignment.smoothing_radius
                tracking = self._config.linking
                for part in observe(task.segment, images, detector, radius, self._templates, tracking):
                    watch.pause()  # while the encoder is busy
                    yield base | {
                        "rows": _to_ipc(part.rows), "crops": part.crops.tobytes(), "number": part.number,
                        "last": part.last, "attempts": watch.number, "work_s": time.monotonic() - start,
                    }  # fmt: skip
                    watch.resume()
                    start = time.monotonic()
        except HOSTILE as error:
            yield base | {"error": reason_of(error), "work_s": time.monotonic() - start}
        # What PyAV leaves lies in cycles of references, and Python looks for those rarely: 50 MB after three minutes.
        gc.collect()


def _is_looked_at(wanted: frozenset[int], frame: Frame) -> bool:
    return frame.index in wanted


def _segment(fields: dict[str, Any]) -> Segment:
    return Segment(**{**fields, "span": Span(**fields["span"])})


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
