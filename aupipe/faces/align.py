"""Five-point similarity alignment to a crop template, with the detector's wobble smoothed out over short chains."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pydantic import Field

from aupipe.config import Section
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.detect import Detections

# ArcFace's template for 112×112 crops (InsightFace): left eye, right eye, nose tip, left, right mouth corner, as seen.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


class AlignmentConfig(Section):
    """How crops are cut. Part of the key of every annotation."""

    smoothing_radius: int = Field(
        default=4, ge=0, le=25
    )  # R: landmarks are averaged over at most ±R neighboring frames


def similarity(points: np.ndarray, template: np.ndarray) -> np.ndarray:
    """(2, 3) least-squares similarity from `points` to `template`, both (5, 2): rotation, one scale, translation.

    The closed form of Umeyama (1991) in the plane; a reflection cannot come out.

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
    """(size, size, 3) uint8 aligned crop; black outside the image.

    A face larger than twice the crop is first reduced by area, since bilinear sampling alone would alias.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (5, 2) landmarks in the image.
        template: (5, 2) where they should come to lie in the crop.
    """
    matrix = similarity(points, template)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        image, matrix = _reduce(image, matrix, size, scale)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def match_detections(before: Detections, now: Detections, min_overlap: float = 0.3) -> np.ndarray:
    """(n_now,) for each face of a frame its mutual best overlap in the frame before, −1 if it has none."""
    links = np.full(len(now), -1)
    if len(before) and len(now):
        overlaps = iou(before.boxes, now.boxes)
        best_before, best_now = overlaps.argmax(axis=0), overlaps.argmax(axis=1)
        mutual = (best_now[best_before] == np.arange(len(now))) & (overlaps.max(axis=0) >= min_overlap)
        links[mutual] = best_before[mutual]
    return links


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of boxes (n, 4) and (m, 4), each x, y, width, height."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    area_first, area_second = np.prod(first[:, 2:], axis=1), np.prod(second[:, 2:], axis=1)
    return both / np.maximum(area_first[:, None] + area_second[None] - both, 1e-9)


def smooth_landmarks(detections: Sequence[Detections], links: Sequence[np.ndarray], at: int, radius: int) -> np.ndarray:
    """(n, 5, 2) landmarks of frame `at`, each averaged with those of its face in up to ±radius neighboring frames.

    The kernel is binomial and symmetric: where the chain ends on one side it is cut on the other too, so that even
    motion shifts nothing.

    Args:
        detections: consecutive frames around `at`; what lies further away than `radius` is not looked at.
        links: `links[t]` connects frame t with frame t − 1 as `match_detections` does (all −1 at a shot cut).
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
    """Landmarks of one face in the frames after (`step` 1) or before (−1) frame `at`, nearest first."""
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


def _binomial(reach: int) -> np.ndarray:
    """(2·reach + 1,) row of Pascal's triangle."""
    row = np.ones(1)
    for _ in range(2 * reach):
        row = np.convolve(row, [1.0, 1.0])
    return row


def _reduce(image: np.ndarray, matrix: np.ndarray, size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the crop shows, reduced by area to its scale, and the matrix that goes on from it."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64)
    inverse = np.linalg.inv(matrix[:, :2])
    seen = (corners - matrix[:, 2]) @ inverse.T
    left, top = np.clip(np.floor(seen.min(axis=0)).astype(int) - 4, 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(seen.max(axis=0)).astype(int) + 4, [left + 1, top + 1], [width, height])
    part = image[top:bottom, left:right]
    small = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    reduced = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    # Pixel centers: x_part = (x_small + 0.5)·ratio − 0.5
    ratio = np.array([part.shape[1] / small[0], part.shape[0] / small[1]])
    linear = matrix[:, :2] * ratio
    offset = matrix[:, :2] @ (0.5 * ratio - 0.5 + np.array([left, top])) + matrix[:, 2]
    return reduced, np.column_stack([linear, offset])
