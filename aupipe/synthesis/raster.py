"""Rasterization of triangles with a depth buffer, in one compiled loop that needs no graphics driver.

Numba compiles it at first use (seconds; then cached), without fast-math, so the output is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints


def rasterize(points: Floats, faces: Ints, size: int) -> tuple[Ints, Floats, Floats]:
    """Return the nearest triangle at the center of each pixel of a picture (size, size).

    Args:
        points: (n, 3), x to the right and y down in pixels, z towards the viewer.
        faces: (F, 3) triangles, visible from both sides.

    Returns:
        The triangle (size, size), −1 for none; the barycentric weights (size, size, 2) of its second and third corner;
        z (size, size), −inf for none.
    """
    face: Ints = np.full((size, size), -1, np.int32)
    shares = np.zeros((size, size, 2), np.float32)
    depth = np.full((size, size), -np.inf, np.float32)
    _fill(np.ascontiguousarray(points, np.float32), faces, face, shares, depth)
    return face, shares, depth


def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Return unit normals (n, 3): the mean over the triangles of a vertex, weighted by area."""
    normals = np.zeros_like(vertices, np.float32)
    _add_normals(np.ascontiguousarray(vertices, np.float32), faces, normals)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)


def _fill_faces(points: Floats, faces: Ints, face: Ints, shares: Floats, depth: Floats) -> None:
    size = face.shape[0]
    for number in range(faces.shape[0]):
        a, b, c = faces[number]
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        left, right = max(0, int(np.ceil(min(ax, bx, cx) - 0.5))), min(size - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        top, bottom = max(0, int(np.ceil(min(ay, by, cy) - 0.5))), min(size - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        for row in range(top, bottom + 1):
            y = row + 0.5
            for column in range(left, right + 1):
                x = column + 0.5
                second = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
                third = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
                if second < 0 or third < 0 or second + third > 1:
                    continue
                z = points[a, 2] + second * (points[b, 2] - points[a, 2]) + third * (points[c, 2] - points[a, 2])
                if z > depth[row, column]:
                    depth[row, column] = z
                    face[row, column] = number
                    shares[row, column, 0] = second
                    shares[row, column, 1] = third


def _add_face_normals(vertices: Floats, faces: Ints, normals: Floats) -> None:
    for number in range(faces.shape[0]):
        a, b, c = faces[number]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2],
        )  # fmt: skip
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2],
        )  # fmt: skip
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            normals[corner, 0] += x
            normals[corner, 1] += y
            normals[corner, 2] += z


def _compiled(function: Callable[..., None]) -> Any:
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # Neither the package nor the home of this user is a place for the compiled code.
        return numba.njit(function)


_fill = _compiled(_fill_faces)
_add_normals = _compiled(_add_face_normals)
