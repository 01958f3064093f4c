"""The nearest triangle is visible in any order of triangles, and weights of corners are exact."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.synthesis import raster
from aupipe.synthesis.raster import rasterize, vertex_normals

pytestmark = pytest.mark.unit

# A square that fills the picture, and a small triangle in front of it.
POINTS = np.array(
    [[0, 0, 0], [8, 0, 0], [0, 8, 0], [8, 8, 0], [2, 2, 1], [6, 2, 1], [2, 6, 1]], np.float32
)  # fmt: skip
FACES = np.array([[0, 1, 2], [1, 3, 2], [4, 5, 6]], np.int32)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_the_nearest_triangle_is_visible(order: list[int]) -> None:
    face, _, depth = rasterize(POINTS, FACES[order], 8)
    assert order[face[3, 3]] == 2
    assert order[face[7, 7]] == 1
    assert (depth == 1).sum() == (face == order.index(2)).sum() == 10
    assert (face >= 0).all()


def test_barycentric_weights_and_pixels_outside_the_picture() -> None:
    points = POINTS[4:] + np.array([3, 0, 0], np.float32)
    face, shares, _ = rasterize(points, np.array([[0, 1, 2]], np.int32), 8)
    row, column = 2, 6
    weights = np.array([1 - shares[row, column].sum(), *shares[row, column]])
    np.testing.assert_allclose(weights @ points[:, :2], [column + 0.5, row + 0.5], atol=1e-5)
    assert face[:, :5].max() == -1


def test_normals_point_out_of_a_square() -> None:
    normals = vertex_normals(POINTS[:4] * [1, -1, 1], FACES[:2])
    np.testing.assert_allclose(np.abs(normals), np.tile([0, 0, 1], (4, 1)), atol=1e-6)


def test_compiled_code_that_cannot_be_kept_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(values: np.ndarray) -> None:
        values *= 2

    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])  # as on a read-only disk without a home
    values = np.ones(2)
    raster._compiled(double)(values)
    assert values.tolist() == [2, 2]
