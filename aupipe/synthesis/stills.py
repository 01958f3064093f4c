"""Unrelated pictures of one person: each with its own expression, light, place and way to hold the head.

For training on single frames: neighboring frames of a video say nearly the same, unrelated ones do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis import au_blendshapes
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_schedule import DRIVEN, present, suppressed
from aupipe.synthesis.render import Renderer
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.scene import draw_scene

# How often an AU is added by itself; those that come along with an expression come on top.
_ALONE = dict(zip(facs.AUS, (0.14, 0.1, 0.2, 0.12, 0.2, 0.16, 0.3, 0.12, 0.1, 0.12, 0.2, 0.25), strict=True))
_ASYMMETRY = 0.12  # standard deviation of what the left side shows more than the right
_GAP_DM = 0.1  # between lips that are parted at full intensity


@dataclass(frozen=True)
class Stills:
    """pictures: (N, H, W, 3);  au: (N, 12) labels;  intensity: (N, 12) 0..1;  traits: of the person."""

    pictures: npt.NDArray[np.uint8]
    au: npt.NDArray[np.bool_]
    intensity: Floats
    traits: dict[str, str]


def draw_intensity(rng: np.random.Generator) -> Floats:
    """(12,) 0..1: an expression, single AUs, or both, from hardly visible to the most; now and then none at all."""
    shown = np.zeros(len(facs.AUS), np.float32)
    if rng.random() < 0.08:
        return shown
    if rng.random() < 0.4:
        strength = rng.uniform(0.3, 1)
        for au, chance in DRIVEN[str(rng.choice(list(DRIVEN)))].items():
            if rng.random() < chance:
                shown[facs.AUS.index(au)] = strength * rng.uniform(0.4, 1)
    for place, chance in enumerate(_ALONE.values()):
        if rng.random() < chance:
            shown[place] = rng.uniform(0.08, 1)
    raised = shown[0]
    if raised and rng.random() < 0.5:  # inner and outer brow mostly rise together
        shown[1] = max(float(shown[1]), float(raised) * rng.uniform(0.5, 1))
    return suppressed(shown)


def draw_distractions(rng: np.random.Generator) -> dict[str, float]:
    """Movements that carry no label: where somebody looks, lids, lips that speak, grimaces."""
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


def draw_pose(rng: np.random.Generator) -> Floats:
    """(3,) radians of yaw, pitch and roll."""
    return (rng.normal(0, [16, 9, 6]) * np.pi / 180).clip(-0.7, 0.7)


def stills(rig: Rig, *, seed: int, count: int, size_px: int) -> Stills:
    """`count` unrelated pictures of the person of a seed."""
    rng = np.random.default_rng(seed)
    person, lips = draw_person(rng, rig), au_blendshapes.lip_columns(rig)
    pictures = np.empty((count, size_px, size_px, 3), np.uint8)
    intensity = np.empty((count, len(facs.AUS)), np.float32)
    gap_dm = np.empty(count)
    for number in range(count):
        shown, pose = draw_intensity(rng), draw_pose(rng)
        moves = dict(zip(facs.AUS, shown.tolist(), strict=True)) | draw_distractions(rng)
        lean = {name: float(rng.normal(0, _ASYMMETRY)) for name in moves}
        face = rig.shape(au_blendshapes.offset_weights(rig.actions, moves, lean), person.vertices)
        gap_dm[number], intensity[number] = lips.gap(face), shown
        renderer = Renderer(rig, person, draw_scene(rng, size_px), size_px=size_px)
        pictures[number] = renderer.frame(face, moves, int(rng.integers(2**31)), pose)
    intensity[:, facs.AUS.index("AU25")] = (gap_dm / _GAP_DM).clip(0, 1)
    return Stills(pictures, present(intensity, gap_dm > au_blendshapes.LIPS_PARTED_DM), intensity, person.traits)
