"""Independent pictures of one person, each with its own expression, light, background and pose.

They are for training on single frames, where independent pictures carry more information than neighboring frames of a
video, which are nearly equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis import au_blendshapes, face_points
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_schedule import DRIVEN, present, suppressed
from aupipe.synthesis.render import Renderer
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.scene import draw_scene

# Probability that an AU is added by itself, beyond those of an expression.
_ALONE = dict(zip(facs.AUS, (0.14, 0.1, 0.2, 0.12, 0.2, 0.16, 0.3, 0.12, 0.1, 0.12, 0.2, 0.25), strict=True))
ASYMMETRY = 0.12  # Standard deviation of the left side's intensity relative to the mean of both sides.
GAP_DM = 0.1  # Gap between the lips at full intensity of AU25.


@dataclass(frozen=True)
class Stills:
    """The pictures of one person.

    Attributes:
        pictures: (N, H, W, 3).
        au: (N, 12) labels.
        intensity: (N, 12), 0..1.
        points: (N, P, 2) of `face_points`, x and y in pixels; the center of the first pixel is at 0.
        traits: of the person.
    """

    pictures: npt.NDArray[np.uint8]
    au: npt.NDArray[np.bool_]
    intensity: Floats
    points: Floats
    traits: dict[str, str]


def draw_intensity(rng: np.random.Generator) -> Floats:
    """Return random intensities (12,), 0..1: an expression, single AUs, or both; 8 % are neutral."""
    drawn = np.zeros(len(facs.AUS), np.float32)
    if rng.random() < 0.08:
        return drawn
    if rng.random() < 0.4:
        strength = rng.uniform(0.3, 1)
        for au, chance in DRIVEN[str(rng.choice(list(DRIVEN)))].items():
            if rng.random() < chance:
                drawn[facs.AUS.index(au)] = strength * rng.uniform(0.4, 1)
    for place, chance in enumerate(_ALONE.values()):
        if rng.random() < chance:
            drawn[place] = rng.uniform(0.08, 1)
    raised = drawn[0]
    if raised and rng.random() < 0.5:  # Inner and outer brow mostly rise together.
        drawn[1] = max(float(drawn[1]), float(raised) * rng.uniform(0.5, 1))
    return suppressed(drawn)


def draw_distractions(rng: np.random.Generator) -> dict[str, float]:
    """Return random movements without a label: gaze, eyelids, speaking lips, grimaces."""
    across, up = rng.normal(0, 0.35, 2).clip(-1, 1)
    moves = {"look_left" if across > 0 else "look_right": abs(across), "look_up" if up > 0 else "look_down": abs(up)}
    if rng.random() < 0.22:
        moves["blink"] = float(rng.choice([rng.uniform(0.1, 0.6), 1.0]))
    for name in rng.choice(_GRIMACES, rng.choice(4, p=[0.4, 0.3, 0.2, 0.1]), replace=False):
        moves[str(name)] = rng.uniform(0.1, 0.9)
    return {name: float(value) for name, value in moves.items()}


_GRIMACES: Sequence[str] = [
    "wide", "sneer", "dimple", "pucker", "stretch", "funnel", "puff", "jaw_left", "jaw_right", "mouth_left",
    "mouth_right", "shrug",
]  # fmt: skip


def _grin(rng: np.random.Generator, intensity: Floats) -> float:
    """Return a factor of the opening of the lips: those of a smile with parted lips often bare the teeth.

    Args:
        intensity: (12,)
    """
    smile, parted = (float(intensity[facs.AUS.index(au)]) for au in ("AU12", "AU25"))
    return float(rng.uniform(1, 2)) if min(smile, parted) > 0.25 and rng.random() < 0.7 else 1.0


def draw_pose(rng: np.random.Generator) -> Floats:
    """Return random yaw, pitch and roll (3,) in radians."""
    return (rng.normal(0, [16, 9, 6]) * np.pi / 180).clip(-0.7, 0.7)


def stills(rig: Rig, *, seed: int, count: int, size_px: int) -> Stills:
    """Return `count` independent pictures of one person. The output is deterministic for a given seed."""
    rng = np.random.default_rng(seed)
    person, lips = draw_person(rng, rig), au_blendshapes.lip_columns(rig)
    places = face_points.RigPoints(rig).places(person.brows)
    pictures = np.empty((count, size_px, size_px, 3), np.uint8)
    intensity = np.empty((count, len(facs.AUS)), np.float32)
    gap_dm, points = np.empty(count), np.empty((count, len(face_points.NAMES), 2), np.float32)
    for number in range(count):
        drawn, pose = draw_intensity(rng), draw_pose(rng)
        moves = dict(zip(facs.AUS, drawn.tolist(), strict=True)) | draw_distractions(rng)
        moves["AU25"] *= _grin(rng.spawn(1)[0], drawn)
        lean = {name: float(rng.normal(0, ASYMMETRY)) for name in moves}
        face = rig.shape(au_blendshapes.offset_weights(rig.actions, moves, lean), person.vertices)
        gap_dm[number], intensity[number] = lips.gap(face), drawn
        renderer = Renderer(rig, person, draw_scene(rng, size_px), size_px=size_px)
        pictures[number] = renderer.frame(face, moves, int(rng.integers(2**31)), pose)
        points[number] = places.of(renderer.placed(face, pose))
    intensity[:, facs.AUS.index("AU25")] = (gap_dm / GAP_DM).clip(0, 1)
    au = present(intensity, gap_dm > au_blendshapes.LIPS_PARTED_DM)
    return Stills(pictures, au, intensity, points, person.traits)
