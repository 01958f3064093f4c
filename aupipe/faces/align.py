"""Five-point similarity alignment to a crop template, with landmarks averaged over neighboring frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from pydantic import Field

from aupipe.config import Section
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.detect import Detections, iou

# ArcFace's template for 112×112 crops (InsightFace): left eye, right eye, nose tip, left and right mouth corner, where
# left and right are those of the image.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)

# Part of the cache key of every annotation. Change it when the same detections and settings give other crops.
METHOD = 3
# Landmarks are averaged over at most R times this, which is R frames from 22 per second on. That time is no multiple of
# a usual step, such as 0.06 s in a GIF; otherwise the rounding of times would choose the frames.
MAX_STEP_S = 0.0457
_MAX_SIDE_PX = 2**15 - 2  # of an image that OpenCV warps; panoramas are wider


class AlignmentConfig(Section):
    """Settings of the alignment. They are part of the cache key of every annotation."""

    # R: landmarks are averaged over at most ±R neighboring frames, and over fewer below 22 frames per second.
    smoothing_radius: int = Field(default=4, ge=0, le=25)


def similarity(points: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Return the (2, 3) least-squares similarity from `points` to `template`, both (5, 2).

    It consists of a rotation, one scale and a translation, by the closed form of Umeyama (1991) in the plane. It never
    contains a reflection.

    Raises:
        ValueError: the points coincide.
    """
    source, target = np.asarray(points, np.float64), np.asarray(template, np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source, target = source - source_mean, target - target_mean
    spread = float((source**2).sum())
    if spread < 1e-9:
        raise ValueError("landmarks coincide: there is no alignment")
    cosine = float((source * target).sum()) / spread
    sine = float((source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum()) / spread
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def crop(image: np.ndarray, points: np.ndarray, template: np.ndarray, size: int = CROP_SIZE_PX) -> np.ndarray:
    """Return the aligned crop (size, size, 3) uint8, black outside the image.

    A face larger than twice the crop is first reduced by area, because bilinear sampling alone would alias.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (5, 2) landmarks in the image.
        template: (5, 2) their target positions in the crop.
    """
    matrix = similarity(points, template)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5 or max(image.shape[:2]) > _MAX_SIDE_PX:
        image, matrix = _reduce(image, matrix, size, scale if scale < 0.5 else 1.0)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def match_detections(before: Detections, now: Detections, min_overlap: float = 0.3) -> np.ndarray:
    """Return (n_now,) the index of each face's mutual best overlap in the previous frame, −1 if it has none."""
    links = np.full(len(now), -1)
    if len(before) and len(now):
        overlaps = iou(before.boxes, now.boxes)
        best_before, best_now = overlaps.argmax(axis=0), overlaps.argmax(axis=1)
        mutual = (best_now[best_before] == np.arange(len(now))) & (overlaps.max(axis=0) >= min_overlap)
        links[mutual] = best_before[mutual]
    return links


def smooth_landmarks(detections: Sequence[Detections], links: Sequence[np.ndarray], at: int, radius: int) -> np.ndarray:
    """Return landmarks (n, 5, 2) of frame `at`, averaged with those of the same face in up to ±radius frames.

    The kernel is binomial and symmetric. Where the chain of links ends on one side, it is cut on the other side too, so
    that uniform motion causes no shift.

    Args:
        detections: consecutive frames around `at`. Frames further away than `radius` are not used.
        links: `links[t]` connects frame t with frame t − 1, as `match_detections` does.
    """
    smoothed = detections[at].landmarks.astype(np.float64)
    for face in range(len(detections[at])):
        before = _chain(detections, links, at, face, radius, step=-1)
        after = _chain(detections, links, at, face, radius, step=+1)
        reach = min(len(before), len(after))
        weights = _binomial(reach)
        total = weights[reach] * smoothed[face]
        for distance in range(reach):
            total = total + weights[reach - 1 - distance] * (before[distance] + after[distance])
        smoothed[face] = total / weights.sum()
    return smoothed.astype(np.float32)


def _chain(
    detections: Sequence[Detections], links: Sequence[np.ndarray], at: int, face: int, radius: int, step: int
) -> list[np.ndarray]:
    """Return the landmarks of one face in the frames after (`step` 1) or before (−1) frame `at`, nearest first."""
    points = []
    for frame in range(at + step, at + step * (radius + 1), step):
        if not 0 <= frame < len(detections):
            break
        if step < 0:
            face = int(links[frame + 1][face])
        else:
            found = np.flatnonzero(links[frame] == face)
            face = int(found[0]) if len(found) else -1
        if face < 0:
            break
        points.append(detections[frame].landmarks[face].astype(np.float64))
    return points


@cache
def _binomial(reach: int) -> np.ndarray:
    """Return the row (2·reach + 1,) of Pascal's triangle."""
    row = np.ones(1)
    for _ in range(2 * reach):
        row = np.convolve(row, [1.0, 1.0])
    return row


def _reduce(image: np.ndarray, matrix: np.ndarray, size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the visible part of the image, reduced by area by the scale, and the matrix from it."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    inverse = np.linalg.inv(matrix[:, :2])
    visible = (corners - matrix[:, 2]) @ inverse.T
    left, top = np.clip(np.floor(visible.min(axis=0)).astype(int) - 4, 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(visible.max(axis=0)).astype(int) + 4, [left + 1, top + 1], [width, height])
    part = image[top:bottom, left:right]
    small = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    reduced = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    # Coordinates refer to pixel centers: x_part = (x_small + 0.5)·ratio − 0.5.
    ratio = np.array([part.shape[1] / small[0], part.shape[0] / small[1]])
    linear = matrix[:, :2] * ratio
    offset = matrix[:, :2] @ (0.5 * ratio - 0.5 + np.array([left, top])) + matrix[:, 2]
    return reduced, np.column_stack([linear, offset])
