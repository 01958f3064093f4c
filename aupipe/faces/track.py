"""Face ids for a whole video: detections are linked over time, through short gaps, never through a shot cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from aupipe.config import Section

_FAR = 1e6


class TrackingConfig(Section):
    """When two detections are the same person."""

    max_gap_s: float = Field(default=1.0, ge=0)  # a face may be missed this long and keep its id
    max_step: float = Field(default=0.7, gt=0)  # how far it may move or grow, in face sizes and e-folds together


@dataclass
class _Track:
    face_id: int
    box: np.ndarray
    time_s: float


def face_ids(
    boxes: Iterable[np.ndarray], times_s: Iterable[float], cuts: Iterable[bool], config: TrackingConfig
) -> Iterator[np.ndarray]:
    """One int32 array (n,) a frame: the id of each of its n boxes. Ids count from 0 in order of appearance, of those
    that appear together the largest first.

    Args:
        boxes: (n, 4) a frame, x, y, width, height.
        times_s: one a frame, ascending.
        cuts: whether a shot cut lies between a frame and the one before.
    """
    live: list[_Track] = []
    next_id = 0
    for frame_boxes, time_s, cut in zip(boxes, times_s, cuts, strict=True):
        live = [] if cut else [t for t in live if time_s - t.time_s <= config.max_gap_s]
        found = np.full(len(frame_boxes), -1, np.int32)
        if live and len(frame_boxes):
            cost = _distance(np.stack([t.box for t in live]), frame_boxes)
            cost[cost > config.max_step] = _FAR
            for track, box in zip(*linear_sum_assignment(cost), strict=True):
                if cost[track, box] < _FAR:
                    found[box] = live[track].face_id
                    live[track] = _Track(live[track].face_id, frame_boxes[box], time_s)
        for box in sorted(np.flatnonzero(found < 0), key=lambda b: (-np.prod(frame_boxes[b, 2:]), *frame_boxes[b])):
            found[box] = next_id
            live.append(_Track(next_id, frame_boxes[box], time_s))
            next_id += 1
        yield found


def _distance(tracks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n, m) distance of centres in face sizes, plus the logarithm of the ratio of sizes."""
    size_a = np.sqrt(np.maximum(np.prod(tracks[:, 2:], axis=1), 1e-6))[:, None]
    size_b = np.sqrt(np.maximum(np.prod(boxes[:, 2:], axis=1), 1e-6))[None]
    centre_a, centre_b = tracks[:, :2] + tracks[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    apart = np.linalg.norm(centre_a[:, None] - centre_b[None], axis=2)
    return np.asarray(apart / np.sqrt(size_a * size_b) + np.abs(np.log(size_a / size_b)), np.float64)
