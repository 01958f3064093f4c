"""Finalise, per video: `head` links faces and makes embeddings AU probabilities, `decide` smooths and thresholds them.

Decide reads only what head left in the frames table, so other thresholds need neither the video nor the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe import facs
from aupipe.annotation.schema import BOX, FRAMES, PROB, RAW
from aupipe.annotation.smoothing import smooth_track
from aupipe.faces.track import TrackingConfig, face_ids

# One track: embeddings (S, E) float32 and times (S,) float64 s in, probabilities (S, 12) out.
Head = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Where a container gives no times at all, frames are taken to be this far apart for the length of gaps.
_ASSUMED_FRAME_S = 0.04


@dataclass(frozen=True)
class Decision:
    """How probabilities become booleans."""

    thresholds: dict[str, float]  # every AU
    smoothing_radius: int


def head(video_id: str, observed: pa.Table, apply: Head, tracking: TrackingConfig) -> pa.Table:
    """The frames table of a video with face ids and `AUxx_raw`; probabilities and booleans are still null.

    Args:
        observed: OBSERVED rows of the whole video, ordered by frame.
    """
    ids = _link_faces(observed, tracking)
    status = np.array(observed["status"].to_pylist())
    raw = np.full((len(observed), len(facs.AUS)), np.nan, np.float32)
    times = gap_times_s(observed)
    for track in _tracks(ids):
        rows = track[status[track] == "ok"]
        if len(rows):
            embeddings = np.array(observed["embedding"].take(pa.array(rows)).to_pylist(), np.float32)
            raw[rows] = apply(embeddings, times[rows])
    columns = {
        "video_id": pa.array([video_id] * len(observed), pa.string()),
        "face_id": pa.array(ids, pa.int32(), mask=ids < 0),
        **{name: observed[name] for name in ("frame", "time_s", "status", "detector_score", *BOX, "landmarks")},
        **{name: _nullable(raw[:, au]) for au, name in enumerate(RAW)},
        **{name: pa.nulls(len(observed), pa.float32()) for name in PROB},
        **{name: pa.nulls(len(observed), pa.bool_()) for name in facs.AUS},
    }
    table = pa.table(columns).select(FRAMES.names)
    order = pc.sort_indices(table, [("frame", "ascending"), ("face_id", "ascending")])
    return table.take(order).cast(FRAMES)


def decide(frames: pa.Table, decision: Decision) -> pa.Table:
    """The frames table of one video with `AUxx_prob` (raw, smoothed along each track) and `AUxx` (prob ≥ threshold)."""
    raw = np.stack([frames[name].to_numpy(zero_copy_only=False) for name in RAW], axis=1).astype(np.float64)
    ids = frames["face_id"].fill_null(-1).to_numpy()
    index, times = frames["frame"].to_numpy(), gap_times_s(frames)
    smoothed = np.full(raw.shape, np.nan)
    for track in _tracks(ids):
        rows = track[~np.isnan(raw[track, 0])]
        if len(rows):
            smoothed[rows] = smooth_track(index[rows], times[rows], raw[rows], decision.smoothing_radius)
    prob = smoothed.astype(np.float32)
    for au, name in enumerate(facs.AUS):
        # Compared at the precision that is stored, so that a reader of the table gets the same answer.
        positive = prob[:, au] >= np.float32(decision.thresholds[name])
        frames = _replace(frames, PROB[au], _nullable(prob[:, au]))
        frames = _replace(frames, name, pa.array(positive, mask=np.isnan(prob[:, au])))
    return frames


def gap_times_s(table: pa.Table) -> np.ndarray:
    """(N,) times for measuring gaps: media time where the container gives it, else an assumed rate."""
    assumed = table["frame"].to_numpy() * _ASSUMED_FRAME_S
    times = np.asarray(table["time_s"].to_numpy(zero_copy_only=False), np.float64)
    if np.isnan(times).all():
        return assumed
    known = ~np.isnan(times)
    return np.where(known, times, np.interp(np.arange(len(times)), np.flatnonzero(known), times[known]))


def _link_faces(observed: pa.Table, tracking: TrackingConfig) -> np.ndarray:
    """(N,) face id of each row, −1 where there is no face."""
    frame = observed["frame"].to_numpy()
    boxes = np.stack([observed[name].to_numpy(zero_copy_only=False) for name in BOX], axis=1)
    has_face = ~np.isnan(boxes[:, 0])
    times = gap_times_s(observed)
    cut = observed["cut"].to_numpy(zero_copy_only=False).astype(bool)
    starts = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1))
    stops = np.append(starts[1:], len(frame))
    runs = list(zip(starts, stops, strict=True))
    per_frame = face_ids(
        [boxes[a:b][has_face[a:b]] for a, b in runs], [float(times[a]) for a, _ in runs],
        [bool(cut[a]) for a, _ in runs], tracking,
    )  # fmt: skip
    ids = np.full(len(frame), -1, np.int32)
    ids[has_face] = np.concatenate(per_frame) if per_frame else []
    return ids


def _tracks(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers of each face, in order."""
    for face in np.unique(ids[ids >= 0]):
        yield np.flatnonzero(ids == face)


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float32(), mask=np.isnan(values))


def _replace(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), FRAMES.field(name), column)
