"""The rows of a video that show the same person, and the times between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from aupipe.annotation.schema import BOX
from aupipe.faces.track import ASSUMED_FRAME_S, LinkedFaces, TrackingConfig, face_ids


def gap_times_s(table: pa.Table) -> np.ndarray:
    """Return times (N,) for measuring gaps: media times if the container gives them, otherwise by an assumed rate."""
    assumed = table["frame"].to_numpy() * ASSUMED_FRAME_S
    times = np.asarray(table["time_s"].to_numpy(zero_copy_only=False), np.float64)
    if np.isnan(times).all():
        return assumed
    known = ~np.isnan(times)
    return np.where(known, times, np.interp(np.arange(len(times)), np.flatnonzero(known), times[known]))


def longest_gap_s(table: pa.Table, times: np.ndarray, max_gap_s: float) -> float:
    """Return the longest gap that is closed: `max_gap_s`, but at least 1.5 of the usual steps between frames.

    Of a video with a frame per second, nothing is missing between two frames. A pause in a faster one is a gap.

    Args:
        times: (N,) of the rows, from `gap_times_s`.
    """
    _, firsts = np.unique(table["frame"].to_numpy(), return_index=True)
    steps = np.diff(times[firsts])
    return max(max_gap_s, 1.5 * float(np.median(steps))) if len(steps) else max_gap_s


def link_faces(features: pa.Table, tracking: TrackingConfig) -> np.ndarray:
    """Return the face id (N,) of each row of a whole video, −1 for a row without a face."""
    frame = features["frame"].to_numpy()
    boxes = np.stack([features[name].to_numpy(zero_copy_only=False) for name in BOX], axis=1)
    has_face = ~np.isnan(boxes[:, 0])
    times = gap_times_s(features)
    cut = features["cut"].to_numpy(zero_copy_only=False).astype(bool)
    links = features["link"].fill_null(-1).to_numpy()
    resumes = features["resumes"].combine_chunks()
    # Few rows have some, and Arrow is slow row by row.
    resuming = np.flatnonzero(resumes.value_lengths().fill_null(0))
    pairs = dict(zip(resuming.tolist(), _pairs(resumes.take(pa.array(resuming))), strict=True))
    sizes = np.stack([features[name].fill_null(0).to_numpy() for name in ("frame_width", "frame_height")], axis=1)
    edges = np.append(np.flatnonzero(np.diff(frame, prepend=frame[:1] - 1)), len(frame))
    starts, stops = edges[:-1], edges[1:]
    # Frames are linked one at a time; a list of them would take most memory for a long video.
    linked = (
        LinkedFaces(
            int(frame[a]), float(times[a]), boxes[a:b][has_face[a:b]], links[a:b][has_face[a:b]],
            [pairs.get(row, ()) for row in range(a, b) if has_face[row]],
            bool(cut[a]), (int(sizes[a, 0]), int(sizes[a, 1])),
        )
        for a, b in zip(starts.tolist(), stops.tolist(), strict=True)
    )  # fmt: skip
    gap_s = longest_gap_s(features, times, tracking.max_gap_s)
    per_frame = face_ids(linked, tracking.model_copy(update={"max_gap_s": gap_s}))
    ids = np.full(len(frame), -1, np.int32)
    ids[has_face] = np.fromiter(chain.from_iterable(per_frame), np.int32, int(has_face.sum()))
    return ids


def _pairs(lists: pa.ListArray) -> list[Sequence[tuple[int, int]]]:
    """Return the (frame, face) pairs of each row."""
    return [list(zip(flat[::2], flat[1::2], strict=True)) for flat in lists.to_pylist()]


def rows_of_faces(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the row numbers of each face, in order."""
    order = np.argsort(ids, kind="stable")  # A search for each face would take too long for thousands of them.
    order = order[np.searchsorted(ids[order], 0) :]
    yield from filter(len, np.split(order, np.flatnonzero(np.diff(ids[order])) + 1))
