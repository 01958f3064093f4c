"""Which rows of a video are one person's, and how far apart in time they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import pyarrow as pa

from aupipe.annotation.schema import BOX
from aupipe.faces.track import TrackingConfig, face_ids

# Where a container gives no times at all, frames are taken to be this far apart for the length of gaps.
_ASSUMED_FRAME_S = 0.04


def gap_times_s(table: pa.Table) -> np.ndarray:
    """(N,) times for measuring gaps: media time where the container gives it, else an assumed rate."""
    assumed = table["frame"].to_numpy() * _ASSUMED_FRAME_S
    times = np.asarray(table["time_s"].to_numpy(zero_copy_only=False), np.float64)
    if np.isnan(times).all():
        return assumed
    known = ~np.isnan(times)
    return np.where(known, times, np.interp(np.arange(len(times)), np.flatnonzero(known), times[known]))


def link_faces(observed: pa.Table, tracking: TrackingConfig) -> np.ndarray:
    """(N,) face id of each row of a whole video, −1 where there is no face."""
    frame = observed["frame"].to_numpy()
    boxes = np.stack([observed[name].to_numpy(zero_copy_only=False) for name in BOX], axis=1)
    has_face = ~np.isnan(boxes[:, 0])
    times = gap_times_s(observed)
    cut = observed["cut"].to_numpy(zero_copy_only=False).astype(bool)
    edges = np.append(np.flatnonzero(np.diff(frame, prepend=frame[:1] - 1)), len(frame))
    starts, stops = edges[:-1], edges[1:]
    # One frame at a time: a list of them would be the largest thing in memory that grows with the video's length.
    per_frame = face_ids(
        (boxes[a:b][has_face[a:b]] for a, b in zip(starts, stops, strict=True)), (float(times[a]) for a in starts),
        (bool(cut[a]) for a in starts), tracking,
    )  # fmt: skip
    ids = np.full(len(frame), -1, np.int32)
    ids[has_face] = np.fromiter(chain.from_iterable(per_frame), np.int32, int(has_face.sum()))
    return ids


def rows_of_faces(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers of each face, in order."""
    for face in np.unique(ids[ids >= 0]):
        yield np.flatnonzero(ids == face)
