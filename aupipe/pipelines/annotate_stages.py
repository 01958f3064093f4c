"""What an annotation runs on workers: probe a video, decode a segment, encode its crops, finalise a group of videos."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from aupipe.annotation import ledger, schema
from aupipe.annotation.events import find_events
from aupipe.annotation.finalise import Decision, decide, head
from aupipe.annotation.ledger import Record
from aupipe.annotation.observe import observe, with_embeddings
from aupipe.annotation.plan import Input, Segment, cut_into_segments
from aupipe.annotation.settings import AnnotateConfig
from aupipe.errors import MediaError
from aupipe.faces.detect import Detector
from aupipe.media.frames import Span
from aupipe.media.probe import fingerprint, probe
from aupipe.models.checkpoint import Card
from aupipe.models.interfaces import System
from aupipe.storage import Storage

# What damaged or hostile input can raise in a worker. Caught in `Probe` and `Decode`, nowhere else; all else is our
# fault or the machine's, and must stop the job.
HOSTILE = (MediaError, av.error.FFmpegError, cv2.error, MemoryError)


def reason_of(error: BaseException) -> str:
    """`code: what happened`, for videos.parquet."""
    code = error.reason if isinstance(error, MediaError) else "decoder_failed"
    return f"{code}: {' '.join(str(error).split())}"


class Probe:
    """A video's fingerprint, record and segments, or the reason why it has none."""

    def __init__(self, config: AnnotateConfig) -> None:
        self._config = config

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        video = Input(row["uri"], row["video_id"])
        try:
            info = probe(video.uri)
            record: Record = {
                "fingerprint": fingerprint(video.uri),
                "frames_expected": info.frames_expected,
                "missing_s": info.missing_s,
                "duration_s": info.duration_s,
                "rotation": info.rotation,
                "variable_frame_rate": info.variable_frame_rate,
            }
        except HOSTILE as error:
            return {**row, "result": json.dumps({"reason": reason_of(error)})}
        segments = cut_into_segments(video, info, self._config.segment_s, self._config.alignment.smoothing_radius)
        return {**row, "result": json.dumps({"record": record, "segments": [asdict(s) for s in segments]})}


def read_probe(result: str) -> dict[str, Any]:
    """What `Probe` said: {"reason": …} or {"record": …, "segments": [Segment, …]}."""
    said: dict[str, Any] = json.loads(result)
    if "segments" in said:
        said["segments"] = [_segment(fields) for fields in said["segments"]]
    return said


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

    def __init__(self, config: AnnotateConfig, template: np.ndarray) -> None:
        self._config, self._template = config, template

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
        }
        start = time.monotonic()
        try:
            detector = Detector(self._config.detector)
            for part in observe(task.segment, detector, self._config.alignment.smoothing_radius, self._template):
                spent, start = time.monotonic() - start, time.monotonic()
                yield base | {
                    "rows": _to_ipc(part.rows), "crops": part.crops.tobytes(), "number": part.number,
                    "last": part.last, "work_s": spent,
                }  # fmt: skip
        except HOSTILE as error:
            yield base | {"error": reason_of(error), "work_s": time.monotonic() - start}


class Encode:
    """Embeds the crops of several parts in batches of one fixed shape, and leaves each part's rows for finalise."""

    def __init__(self, system: ray.ObjectRef, card: Card, out: str, batch_size: int, gpu: bool) -> None:
        torch.set_num_threads(1)  # one CPU is what the actor has; and more threads could sum in another order
        self._device = torch.device("cuda" if gpu else "cpu")
        loaded: System = ray.get(system)
        self._encoder = loaded.encoder.to(self._device).eval()
        self._card, self._storage, self._batch_size = card, Storage(out), batch_size

    def __call__(self, batch: pa.Table) -> pa.Table:
        start = time.monotonic()
        parts = batch.to_pylist()
        size = 112 * 112 * 3
        crops = [np.frombuffer(part["crops"], np.uint8).reshape(-1, 112, 112, 3) for part in parts]
        embeddings = self._embed(np.concatenate(crops))
        done = []
        for part, count in zip(parts, (len(c) for c in crops), strict=True):
            assert len(part["crops"]) == count * size
            mine, embeddings = embeddings[:count], embeddings[count:]
            frames = 0
            if not part["error"]:
                rows = with_embeddings(_from_ipc(part["rows"]), mine)
                ledger.write_observed(self._storage, part["key"], part["number"], part["last"], rows)
                frames = len(np.unique(rows["frame"].to_numpy()))
            done.append(
                {"video_id": part["video_id"], "error": part["error"], "frames": frames, "work_s": part["work_s"]}
            )
        share = (time.monotonic() - start) / max(len(done), 1)
        return pa.Table.from_pylist([d | {"work_s": d["work_s"] + share} for d in done])

    def _embed(self, crops: np.ndarray) -> np.ndarray:
        """(N, E) float32 embeddings of crops (N, 112, 112, 3) uint8. Every call of the encoder has the same shape."""
        width = self._encoder.width
        result = np.zeros((len(crops), width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(crops), self._batch_size):
                chunk = crops[start : start + self._batch_size]
                padded = np.zeros((self._batch_size, *crops.shape[1:]), np.uint8)
                padded[: len(chunk)] = chunk
                inputs = self._card.input.prepare(torch.from_numpy(padded).to(self._device))
                result[start : start + len(chunk)] = self._encoder(inputs)[: len(chunk)].float().cpu().numpy()
        return result


@dataclass(frozen=True)
class Group:
    """Videos whose tables are written together.

    Attributes:
        records: what is known of each before finalise.
        observed: for each video the files that observe left, in order; empty where head is done and only decide is due:
            then `committed` names the frames files that hold its rows.
    """

    records: list[Record]
    observed: list[list[str]]
    committed: list[str]
    generation: int

    def to_row(self) -> dict[str, Any]:
        return {"group": json.dumps(asdict(self))}


class Finalise:
    """Head, decide and events for a group of videos; commits their tables."""

    def __init__(self, system: ray.ObjectRef, out: str, config: AnnotateConfig, decision: Decision) -> None:
        torch.set_num_threads(1)
        loaded: System = ray.get(system)
        self._head = loaded.head.eval()
        self._storage, self._config, self._decision = Storage(out), config, decision

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        group = Group(**json.loads(row["group"]))
        tables = []
        before = ledger.read_all(self._storage, group.committed, schema.FRAMES) if group.committed else None
        records = []
        for known, files in zip(group.records, group.observed, strict=True):
            record = dict(known)
            if before is not None:
                frames = before.filter(pc.equal(before["video_id"], record["video_id"]))
            else:
                observed = ledger.read_all(self._storage, files, schema.OBSERVED)
                record |= counts_of(observed, record["frames_expected"], record["missing_s"])
                frames = head(record["video_id"], observed, self._apply_head, self._config.tracking)
                record["faces"] = len(frames["face_id"].drop_null().unique())
            tables.append(decide(frames, self._decision))
            records.append(record)
        events = pa.concat_tables([find_events(table, self._config.events) for table in tables])
        ledger.commit(
            self._storage, pa.concat_tables(tables), events, records, group.generation, self._config.rows_per_file
        )
        return {"video_ids": json.dumps([record["video_id"] for record in records])}

    def _apply_head(self, embeddings: np.ndarray, times_s: np.ndarray) -> np.ndarray:
        """One track: (S, E) and (S,) → probabilities (S, 12)."""
        with torch.inference_mode():
            mask = torch.ones(1, len(embeddings), dtype=torch.bool)
            logits = self._head(torch.from_numpy(embeddings)[None], mask, torch.from_numpy(times_s)[None])["au"]
            return logits[0].float().sigmoid().numpy()


def counts_of(observed: pa.Table, frames_expected: int, missing_s: float) -> Record:
    """Decoded, lost and corrupt frames of a video, and the status and reason that follow."""
    frame = observed["frame"].to_numpy()
    lost = frame[np.array(observed["status"].to_pylist()) == "decode_error"]
    corrupt = np.unique(frame[observed["corrupt"].to_numpy(zero_copy_only=False).astype(bool)])
    total = len(np.unique(frame))
    reasons = [
        f"{code}: {len(frames)} of {frames_expected} ({_ranges(frames)})"
        for code, frames in (("frames_lost", lost), ("frames_corrupt", corrupt))
        if len(frames)
    ]
    if missing_s:
        reasons.append(f"truncated: it ends {missing_s:.1f} s before the length that its container promises")
    return {
        "frames_decoded": total - len(lost),
        "frames_lost": len(lost),
        "frames_corrupt": len(corrupt),
        "status": "partial" if len(lost) or missing_s else "ok",
        "reason": "; ".join(reasons),
    }


def _segment(fields: dict[str, Any]) -> Segment:
    return Segment(**{**fields, "span": Span(**fields["span"])})


def _ranges(indices: np.ndarray, most: int = 20) -> str:
    """'3-7, 12' for [3 4 5 6 7 12]."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:most]]
    return ", ".join(texts) + (", …" if len(runs) > most else "")


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_ipc(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
