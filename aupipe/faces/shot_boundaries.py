"""Shot cuts between consecutive frames, by the correlation of small gray images. A cut depends only on two frames."""

from __future__ import annotations

import cv2
import numpy as np

_SIDE = 32
_SAMPLES = 2  # per axis of a cell, at least; the mean of all pixels takes several times as long
_MAX_CORRELATION = 0.5
_MIN_CHANGE = 10.0  # gray levels; below it the correlation of two dark or flat images is not meaningful


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a (32, 32) float32 gray image of a frame (H, W, 3) uint8 RGB."""
    step = max(1, min(image.shape[:2]) // (_SIDE * _SAMPLES))
    small = cv2.resize(every(image, step), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def every(image: np.ndarray, step: int) -> np.ndarray:
    """Return a copy of every `step`-th pixel of every `step`-th row of an image (H, W, 3) uint8.

    Pixels are copied as one item each, which takes half the time of three.
    """
    pixels = image.view("V3")[::step, ::step]
    return np.ascontiguousarray(pixels).view(np.uint8)


def is_cut(before: np.ndarray, now: np.ndarray) -> bool:
    """Return whether a new shot begins: the layout of the image changed, not only its brightness."""
    a, b = before - before.mean(), now - now.mean()
    if float(np.abs(a - b).mean()) < _MIN_CHANGE:
        return False
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) < _MAX_CORRELATION * norm
