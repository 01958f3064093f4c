"""Drawn video calls of different people in tiles that move, with the true person of each tile in each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Place = tuple[int, int]  # column and row of a tile
Layout = Mapping[Place, int]  # tile → person


@dataclass(frozen=True)
class Person:
    """The appearance of a drawn person, random by `seed`."""

    seed: int

    def draw(self, time: float, width: int, height: int, smile: float | None = None) -> np.ndarray:
        """Return a (height, width, 3) uint8 RGB image of the person, who sways and smiles, in front of a wall."""
        rng = np.random.default_rng(self.seed)
        skin = np.array([224, 180, 150]) * rng.uniform(0.65, 1.05) + rng.uniform(-15, 15, 3)
        hair = np.array([95, 65, 45]) * rng.uniform(0.2, 2.2) + rng.uniform(-10, 10, 3)
        wall, shirt = rng.uniform(60, 200) + rng.normal(0, 20, 3), rng.uniform(20, 230, 3)
        wide, long, eyes, brow = (
            rng.uniform(0.9, 1.1),
            rng.uniform(0.0, 0.25),
            rng.uniform(-0.01, 0.015),
            rng.uniform(1, 2),
        )
        stripes = rng.uniform(0, 60)
        beard = rng.random() < 0.3
        smile = abs(np.sin(time * 3 + self.seed)) if smile is None else smile
        scale = height * 2
        canvas = np.empty((scale, width * 2, 3), np.float32)
        canvas[:] = wall
        canvas += (stripes * np.sin(np.arange(width * 2) / rng.uniform(8, 30)))[None, :, None]
        canvas = np.clip(canvas, 0, 255).astype(np.uint8)
        middle = width / scale + 0.012 * np.sin(time * 2 + self.seed)

        def ellipse(x: float, y: float, rx: float, ry: float, color: np.ndarray) -> None:
            center, axes = (round((middle + x) * scale), round(y * scale)), (round(rx * scale), round(ry * scale))
            cv2.ellipse(canvas, center, axes, 0, 0, 360, np.clip(color, 0, 255).tolist(), -1, cv2.LINE_AA)

        ellipse(0, 1.05, 0.42, 0.22, shirt)
        ellipse(0, 0.42 + long / 2, 0.29 * wide, 0.33 + long / 2, hair)
        ellipse(0, 0.50, 0.24 * wide, 0.32, skin)
        if beard:
            ellipse(0, 0.70, 0.17 * wide, 0.12, hair)
        for side in (-1, 1):
            x = side * (0.10 + eyes)
            ellipse(x, 0.45, 0.05, 0.025, np.array([245, 245, 245]))
            ellipse(x, 0.45, 0.022, 0.024, np.array([60, 40, 30]))
            ellipse(x, 0.39, 0.065, 0.009 * brow, hair * 0.7)
        ellipse(0, 0.55, 0.035, 0.06, skin * 0.92)
        ellipse(0, 0.59, 0.04, 0.02, skin * 0.84)
        ellipse(0, 0.69, 0.09, 0.022 + 0.03 * smile, np.array([170, 70, 75]))
        canvas = cv2.GaussianBlur(canvas, (0, 0), scale / 200)
        return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def call(
    layouts: Sequence[Layout], grid: Place = (3, 2), tile: Place = (168, 160), rate: float = 25.0
) -> list[np.ndarray]:
    """Return one image per layout, of (columns, rows) tiles of (width, height) px; tiles without a person are dark."""
    (columns, rows), (width, height) = grid, tile
    pictures = []
    for number, layout in enumerate(layouts):
        picture = np.full((rows * height, columns * width, 3), 26, np.uint8)
        for (column, row), person in layout.items():
            drawn = Person(person).draw(number / rate, width - 8, height - 8)
            picture[row * height + 4 : (row + 1) * height - 4, column * width + 4 : (column + 1) * width - 4] = drawn
        pictures.append(picture)
    return pictures


def textured(pictures: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Return pictures with a random texture, because real skin, hair and walls are not of one color each."""
    noise = np.random.default_rng(seed).normal(size=pictures[0].shape).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 5)
    texture *= 20 / texture.std()
    return [np.clip(picture + texture, 0, 255).astype(np.uint8) for picture in pictures]


def gallery(people: Sequence[int], columns: int = 3) -> dict[Place, int]:
    """Return a layout of people in reading order."""
    return {(place % columns, place // columns): person for place, person in enumerate(people)}


def person_at(layout: Layout, box: Sequence[float], tile: Place = (168, 160)) -> int:
    """Return the person whose tile contains the center of the box, −1 for a dark tile."""
    x, y, width, height = box
    return layout.get((int((x + width / 2) // tile[0]), int((y + height / 2) // tile[1])), -1)


def faults(
    layouts: Sequence[Layout], rows: Sequence[Mapping[str, object]], tile: Place = (168, 160)
) -> tuple[int, int]:
    """Count the id switches and the needless new ids of rows with `frame`, `box` and `face_id`, ordered by frame.

    A switch is an id that belongs to one person and then to another. A needless new id is one that differs from the
    last id of the same person in the same tile, where the person stayed in the tile and that id is at most 25 frames
    old.
    """
    switches = needless = 0
    person_of: dict[int, int] = {}
    last: dict[tuple[int, Place], tuple[int, int]] = {}
    for row in rows:
        frame, face, box = int(row["frame"]), int(row["face_id"]), row["box"]  # type: ignore[call-overload]
        layout = layouts[frame]
        person = person_at(layout, box, tile)  # type: ignore[arg-type]
        switches += person_of.get(face, person) != person
        person_of[face] = person
        place = next((position for position, other in layout.items() if other == person), (-1, -1))
        before = last.get((person, place))
        stayed = before is not None and frame - before[0] <= 25 and all(
            layouts[f].get(place) == person for f in range(before[0], frame)
        )  # fmt: skip
        needless += stayed and before is not None and before[1] != face
        last[person, place] = frame, face
    return switches, needless
