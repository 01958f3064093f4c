"""Which five-point template foreign crops were aligned to, by looking at where the detector sees the points on them.

The detector is biased on tight crops, so what it sees is compared with what it sees on crops that we aligned ourselves:
template = ArcFace's + (median on theirs − median on ours), both on crops enlarged to twice their size.
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
MIN_FACES = 8  # fewer say nothing about a data set
SAME_PX = 2.0  # templates whose points differ by less on average are one

# (5, 2) median of the points that YuNet sees on crops that we aligned to ArcFace's template: nose tip 3.5 px low, mouth
# corners 2.2 px high. Measured on 19 real videos of about as many people (each person's pose moves points by 1.6 px) by
#   bench.py detector_bias --input videos/
YUNET_POINTS_ON_ARCFACE = np.array(
    [[37.96, 52.16], [74.10, 52.68], [55.43, 75.25], [41.08, 90.17], [70.74, 90.03]], np.float32
)


@dataclass(frozen=True)
class Template:
    """(5, 2) points of a data set's crops, and how they are known."""

    points: np.ndarray
    source: Literal["arcface", "measured", "assumed"]
    faces: int  # crops in which the detector found a face

    def as_tuples(self) -> tuple[tuple[float, float], ...]:
        """The points as they stand in store.json."""
        return tuple((float(x), float(y)) for x, y in self.points.astype(np.float64).round(4))


def template_of(crops: Iterable[np.ndarray], detector: Detector) -> Template:
    """The template of foreign crops, each (112, 112, 3) uint8 RGB; ArcFace's, `assumed`, where no faces are found."""
    seen = seen_points(crops, detector)
    if len(seen) < MIN_FACES:
        return Template(ARCFACE_TEMPLATE, "assumed", len(seen))
    points = ARCFACE_TEMPLATE + np.median(seen, axis=0) - YUNET_POINTS_ON_ARCFACE
    if distance(points, ARCFACE_TEMPLATE) < SAME_PX:
        return Template(ARCFACE_TEMPLATE, "arcface", len(seen))
    return Template(points.round(2).astype(np.float32), "measured", len(seen))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean distance in pixels of the points of two templates (5, 2)."""
    return float(np.linalg.norm(np.asarray(first) - np.asarray(second), axis=1).mean())


def seen_points(crops: Iterable[np.ndarray], detector: Detector) -> np.ndarray:
    """(M, 5, 2) where the detector sees the points of the M crops in which it finds a face, in crop pixels."""
    points = []
    for image in crops:
        height, width = image.shape[:2]
        large = cv2.resize(image, (_ENLARGE * width, _ENLARGE * height), interpolation=cv2.INTER_LINEAR)
        faces = detector.detect(large)
        if len(faces):
            points.append((faces.landmarks[0] + 0.5) / _ENLARGE - 0.5)  # pixel centers
    return np.stack(points) if points else np.zeros((0, 5, 2), np.float32)
