"""Estimation of the five-point template that third-party crops were aligned to, from landmarks detected on them.

The detector is biased on tight crops, so its landmarks are compared with those that it detects on crops of our own
alignment: template = ArcFace's + (median on theirs − median on ours), both on crops enlarged to twice their size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import Detector

_ENLARGE = 2
MIN_FACES = 8  # with fewer faces the template cannot be estimated
SAME_PX = 2.0  # templates with a smaller mean distance of their points are considered equal

# (5, 2) median of the landmarks that YuNet detects on crops aligned to ArcFace's template: the nose tip is 3.5 px too
# low, mouth corners are 2.2 px too high. Measured on 19 real videos of about as many people (the pose of each person
# moves points by 1.6 px) with
#   bench.py detector_bias --input videos/
YUNET_POINTS_ON_ARCFACE = np.array(
    [[37.96, 52.16], [74.10, 52.68], [55.43, 75.25], [41.08, 90.17], [70.74, 90.03]], np.float32
)


@dataclass(frozen=True)
class Template:
    """The template of a data set's crops, and its origin."""

    points: np.ndarray  # (5, 2) in crop pixels
    source: Literal["arcface", "measured", "assumed"]
    faces: int  # number of crops in which the detector found a face

    def as_tuples(self) -> tuple[tuple[float, float], ...]:
        """Return the points in the form of store.json."""
        return tuple((float(x), float(y)) for x, y in self.points.astype(np.float64).round(4))


def template_of(crops: Iterable[np.ndarray], detector: Detector) -> Template:
    """Return the template of third-party crops, each (112, 112, 3) uint8 RGB.

    It is ArcFace's, marked as `assumed`, if fewer than `MIN_FACES` faces are detected.
    """
    detected = detected_points(crops, detector)
    if len(detected) < MIN_FACES:
        return Template(ARCFACE_TEMPLATE, "assumed", len(detected))
    points = ARCFACE_TEMPLATE + np.median(detected, axis=0) - YUNET_POINTS_ON_ARCFACE
    if distance(points, ARCFACE_TEMPLATE) < SAME_PX:
        return Template(ARCFACE_TEMPLATE, "arcface", len(detected))
    return Template(points.round(2).astype(np.float32), "measured", len(detected))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean distance in pixels of the points of two templates (5, 2)."""
    return float(np.linalg.norm(np.asarray(first) - np.asarray(second), axis=1).mean())


def detected_points(crops: Iterable[np.ndarray], detector: Detector) -> np.ndarray:
    """Return landmarks (M, 5, 2) in crop pixels, of the M crops in which the detector finds a face."""
    points = []
    for image in crops:
        height, width = image.shape[:2]
        large = cv2.resize(image, (_ENLARGE * width, _ENLARGE * height), interpolation=cv2.INTER_LINEAR)
        faces = detector.detect(large)
        if len(faces):
            points.append((faces.landmarks[0] + 0.5) / _ENLARGE - 0.5)  # pixel centers
    return np.stack(points) if points else np.zeros((0, 5, 2), np.float32)
