"""Face ids for a whole video: detections are linked over time and across short gaps, but no gap has a shot cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from aupipe.config import Section

if TYPE_CHECKING:
    from aupipe.media.frames import Frame

# The assumed distance of frames for the length of gaps, if a container has no times.
ASSUMED_FRAME_S = 0.04
_FAR = 1e6
# Part of the cache key of every annotation. Change it when the same detections and settings give other face ids.
METHOD = 2


class TrackingConfig(Section):
    """Limits within which two detections of similar appearance are the same person."""

    max_gap_s: float = Field(default=1.0, ge=0)  # a face that is missing for this long keeps its id
    max_step: float = Field(default=0.7, gt=0)  # motion in face sizes plus growth in e-folds, at most


@dataclass(frozen=True)
class LinkedFaces:
    """The n faces of one frame, and the earlier faces that they may continue.

    Attributes:
        frame: index of the frame.
        boxes: (n, 4) x, y, width, height.
        links: (n,) index of the same face in the previous frame, −1 if there is none.
        resumes: for each face, (frame, face) of the earlier faces that it may continue after a gap.
        cut: there is a shot cut between the previous frame and this one.
        size: width and height of the frame, which may change within a stream.
    """

    frame: int
    time_s: float
    boxes: np.ndarray
    links: np.ndarray
    resumes: Sequence[Sequence[tuple[int, int]]]
    cut: bool
    size: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class _Track:
    face_id: int
    box: np.ndarray
    time_s: float
    size: tuple[int, int]


def face_ids(frames: Iterable[LinkedFaces], config: TrackingConfig) -> Iterator[np.ndarray]:
    """Yield one int32 array (n,) per frame: the id of each of its n faces.

    Ids count from 0 in order of appearance. Of faces that appear in the same frame, the largest comes first. A linked
    face has the id of the face in the previous frame. The others are assigned to the tracks that they may resume so
    that the sum of distances is minimal. A track that no face resumes within `max_gap_s` ends, as does one without a
    link across a shot cut.
    """
    live: dict[tuple[int, int], _Track] = {}  # by (frame, face) of the last detection
    previous = -1
    next_id = 0
    for faces in frames:
        live = {k: t for k, t in live.items() if faces.time_s - t.time_s <= config.max_gap_s}
        found = np.full(len(faces.boxes), -1, np.int32)
        for face in np.flatnonzero(faces.links >= 0).tolist():
            track = live.pop((previous, int(faces.links[face])), None)
            if track is not None:
                found[face] = track.face_id
        if faces.cut:
            live = {}
        for face, place in _resumed(live, faces, np.flatnonzero(found < 0), config.max_step):
            found[face] = live.pop(place).face_id
        unassigned = np.flatnonzero(found < 0).tolist()
        for face in sorted(unassigned, key=lambda b: (-np.prod(faces.boxes[b, 2:]), *faces.boxes[b])):
            found[face] = next_id
            next_id += 1
        for face, box in enumerate(faces.boxes):
            live[faces.frame, face] = _Track(int(found[face]), box, faces.time_s, faces.size)
        previous = faces.frame
        yield found


def _resumed(
    live: dict[tuple[int, int], _Track], faces: LinkedFaces, candidates: np.ndarray, max_step: float
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the `candidates` that resume a track, each with the (frame, face) of the track's last detection."""
    candidates = np.array([face for face in candidates if any(place in live for place in faces.resumes[face])], int)
    places = sorted({place for face in candidates for place in faces.resumes[face] if place in live})
    if not places:
        return
    from scipy.optimize import linear_sum_assignment  # takes a second, and few videos have faces that return

    tracks = [live[place] for place in places]
    cost = distance(np.stack([scaled(t.box, t.size, faces.size) for t in tracks]), faces.boxes[candidates])
    allowed = np.array([[place in faces.resumes[face] for face in candidates] for place in places])
    cost[~allowed | (cost > max_step)] = _FAR
    for row, column in zip(*linear_sum_assignment(cost), strict=True):
        if cost[row, column] < _FAR:
            yield int(candidates[column]), places[row]


def scaled(boxes: np.ndarray, before: tuple[int, int], now: tuple[int, int]) -> np.ndarray:
    """Return boxes (…, 4) of a frame in pixels of another frame size with the same content."""
    if before == now:
        return boxes
    ratio = np.array(now) / np.array(before)
    return np.asarray(boxes * np.tile(ratio, 2), boxes.dtype)


def gap_s(before: Frame, now: Frame) -> float:
    """Return the seconds between two frames; by an assumed rate if one has no time."""
    if before.time_s is None or now.time_s is None:
        return (now.index - before.index) * ASSUMED_FRAME_S
    return now.time_s - before.time_s


def distance(tracks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return (n, m) the distance of centers in face sizes, plus the logarithm of the ratio of sizes."""
    size_a = np.sqrt(np.maximum(np.prod(tracks[:, 2:], axis=1), 1e-6))[:, None]
    size_b = np.sqrt(np.maximum(np.prod(boxes[:, 2:], axis=1), 1e-6))[None]
    center_a, center_b = tracks[:, :2] + tracks[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    shift = np.linalg.norm(center_a[:, None] - center_b[None], axis=2)
    return np.asarray(shift / np.sqrt(size_a * size_b) + np.abs(np.log(size_a / size_b)), np.float64)
