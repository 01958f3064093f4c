"""What stands out from the skin and turns with the head: hair, caps, glasses. Each is a mesh of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.synthesis.rig import EYE_X_DM

_CORNERS = 28  # of a rim
_COLUMNS, _ROWS = 96, 14  # of the shell that hair is


@dataclass(frozen=True)
class AccessoryMesh:
    """vertices: (n, 3) with the middle between the eyes at the origin;  faces: (F, 3);  uv: (n, 2) in its picture."""

    vertices: Floats
    faces: Ints
    uv: Floats


def draw_hair(rng: np.random.Generator, skin: Floats, *, long: bool) -> AccessoryMesh:
    """A shell round the skull, open before the face, with a ragged edge. skin: (m, 3)."""
    skull = skin[skin[:, 1] > 0.3]
    low, high = skull.min(0), skull.max(0)
    thick = rng.uniform(0.02, 0.16)
    middle = np.array([0.0, 0.25, (low[2] + high[2]) / 2])
    radii = np.array([high[0], high[1] - middle[1], high[2] - middle[2]]) + thick
    angle = np.linspace(-np.pi, np.pi, _COLUMNS)  # 0 in front
    fringe, temple, nape = rng.uniform(0.3, 1.0), rng.uniform(-0.3, 0.5), rng.uniform(-2.6, -0.8) if long else -0.7
    open_to = rng.uniform(0.9, 1.25)
    part = rng.uniform(0, 0.35) * np.sin(angle * 1.5 + rng.uniform(-1, 1))  # higher on one side
    edge = np.interp(
        np.abs(angle), [0, 0.6 * open_to, open_to, open_to + 0.35, np.pi], [fringe, fringe, temple, nape, nape]
    )
    ragged = np.interp(np.arange(_COLUMNS), np.arange(0, _COLUMNS, 3), rng.normal(0, 0.05, _COLUMNS // 3))
    edge = np.minimum(edge + part * (np.abs(angle) < open_to) + ragged, middle[1] + 0.92 * radii[1])
    down = np.linspace(0, 1, _ROWS)[:, None]
    height = (middle[1] + radii[1]) * (1 - down) + edge * down
    up = ((height - middle[1]) / radii[1]).clip(0, 1)  # below the widest place hair hangs straight
    round_ = np.sqrt(1 - up**2) * (
        1 + 0.03 * np.interp(np.arange(_COLUMNS), np.arange(0, _COLUMNS, 4), rng.normal(0, 1, _COLUMNS // 4))
    )
    x, z = radii[0] * round_ * np.sin(angle), middle[2] + radii[2] * round_ * np.cos(angle)
    vertices = np.stack([x, height, z], 2).reshape(-1, 3)
    uv = np.stack(np.broadcast_arrays((angle / (2 * np.pi) + 0.5)[None], down), 2).reshape(-1, 2)
    return AccessoryMesh(vertices.astype(np.float32), _grid_faces(_ROWS, _COLUMNS), uv.astype(np.float32))


def _grid_faces(rows: int, columns: int) -> Ints:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.stack([corner, corner + 1, corner + columns], 1)
    second = np.stack([corner + 1, corner + columns + 1, corner + columns], 1)
    return np.concatenate([first, second]).astype(np.int32)


def draw_glasses(rng: np.random.Generator, skin: Floats) -> AccessoryMesh:
    """Random glasses that sit on `skin` (m, 3): round to square, thin wire to thick plastic."""
    bridge = skin[(np.abs(skin[:, 0]) < 0.08) & (np.abs(skin[:, 1]) < 0.12), 2].max()
    front, width = (
        bridge + rng.uniform(0.0, 0.06),
        np.abs(skin[(np.abs(skin[:, 1]) < 0.15) & (skin[:, 2] > -1.0), 0]).max(),
    )
    wide, tall = rng.uniform(0.2, 0.27), rng.uniform(0.13, 0.24)
    square, thick = rng.uniform(2, 5), rng.choice([rng.uniform(0.008, 0.014), rng.uniform(0.02, 0.045)])
    drop, curve = rng.uniform(-0.02, 0.08), rng.uniform(0.05, 0.25)
    angle = np.linspace(0, 2 * np.pi, _CORNERS + 1)
    outline = np.stack([_power(np.cos(angle), square) * wide, _power(np.sin(angle), square) * tall], 1)
    ribbons = []
    for side in (-1, 1):
        middle = np.array([side * EYE_X_DM * rng.uniform(1.0, 1.08), -drop])
        rims = [middle + outline * (1 + grow * thick / np.array([wide, tall])) for grow in (-0.5, 0.5)]
        ribbons.append([np.column_stack([rim, front - curve * rim[:, 0] ** 2]) for rim in rims])
        inner = side * (EYE_X_DM - wide)
        ribbons.append(_strip([0, 0.02, front], [inner, 0, front], thick))
        outer = side * (EYE_X_DM + wide)
        ribbons.append(
            _strip([outer, 0.04, front - curve * outer**2], [side * max(width, abs(outer)), 0.04, -0.6], thick)
        )
    vertices: list[Floats] = []
    faces: list[list[int]] = []
    start = 0
    for first, second in ribbons:
        count = len(first)
        vertices += [first, second]
        for k in range(start, start + count - 1):
            faces += [[k, k + 1, k + count], [k + 1, k + count + 1, k + count]]
        start += 2 * count
    joined = np.concatenate(vertices).astype(np.float32)
    return AccessoryMesh(joined, np.array(faces, np.int32), np.zeros((len(joined), 2), np.float32))


def _power(values: Floats, square: float) -> Floats:
    """A superellipse's corner: 2 is round, more is squarer."""
    return np.sign(values) * np.abs(values) ** (2 / square)


def _strip(start: list[float], stop: list[float], thick: float) -> list[Floats]:
    line = np.linspace(start, stop, 8)
    return [line + np.array([0, side * thick / 2, 0]) for side in (-1, 1)]
