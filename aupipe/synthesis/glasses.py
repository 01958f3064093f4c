"""Glasses: rims before the eyes, a bridge and two arms, as flat ribbons that turn with the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aupipe.synthesis.rig import EYE_X_DM, Floats, Ints

_CORNERS = 28  # of a rim


@dataclass(frozen=True)
class Glasses:
    """vertices: (n, 3) with the middle between the eyes at the origin;  faces: (F, 3)."""

    vertices: Floats
    faces: Ints


def draw_glasses(rng: np.random.Generator, skin: Floats) -> Glasses:
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
    return Glasses(np.concatenate(vertices).astype(np.float32), np.array(faces, np.int32))


def _power(values: Floats, square: float) -> Floats:
    """A superellipse's corner: 2 is round, more is squarer."""
    return np.sign(values) * np.abs(values) ** (2 / square)


def _strip(start: list[float], stop: list[float], thick: float) -> list[Floats]:
    line = np.linspace(start, stop, 8)
    return [line + np.array([0, side * thick / 2, 0]) for side in (-1, 1)]
