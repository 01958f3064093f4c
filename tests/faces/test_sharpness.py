"""Sharpness: falls with blur, does not see the border, and is exact."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from aupipe.faces.sharpness import sharpness

pytestmark = pytest.mark.unit

CROP = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)


def test_blur_lowers_it() -> None:
    values = [sharpness(cv2.GaussianBlur(CROP, (0, 0), sigma)) for sigma in (0.5, 1.0, 2.0)]
    assert values[0] > 4 * values[1] > 16 * values[2] > 0
    assert sharpness(np.full_like(CROP, 90)) == 0


def test_a_black_border_does_not_count() -> None:
    flat = np.full_like(CROP, 200)
    flat[:20] = 0
    assert sharpness(flat) == 0


def test_it_is_the_variance_of_the_laplacian() -> None:
    gray = cv2.cvtColor(CROP, cv2.COLOR_RGB2GRAY)[32:104, 20:92].astype(np.float64)
    padded = np.pad(gray, 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray
    assert sharpness(CROP) == pytest.approx(laplacian.var())
