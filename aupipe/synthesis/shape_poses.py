"""Poses of the heads as points in the plane, without pictures: tens of thousands in a minute.

They train the part of the geometry model that reads AUs from points. The movements are corrected by what the same
people's faces show at rest and with an AU: a brow that lowers hardly moves inwards, and anny's brow rises and its lids
tighten twice as much as those of real faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis import au_blendshapes, face_points
from aupipe.synthesis.appearance import draw_identity
from aupipe.synthesis.au_blendshapes import LipColumns
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.scene import draw_camera_distance, rotate_head
from aupipe.synthesis.skin_texture import draw_brows
from aupipe.synthesis.stills import ASYMMETRY, GAP_DM, draw_distractions, draw_intensity, draw_pose

_INWARD_BROW = 0.25  # share of the rigs' inward movement of a lowered brow
_STRENGTH: Mapping[str, Mapping[str, float]] = {"anny": {"AU01": 0.6, "AU07": 0.55}, "ict": {}}


@dataclass(frozen=True)
class ShapePoses:
    """N poses.

    Attributes:
        points: (N, P, 2) of `face_points`, in dm at the distance of the eyes; x to the right of the image, y down.
        intensity: (N, 12), 0..1.
        at_rest: (M, P, 3) the points of each person at rest, in dm, y down.
    """

    points: Floats
    intensity: Floats
    at_rest: Floats


def draw_poses(rigs: list[Rig], *, people: int, each: int, seed: int) -> ShapePoses:
    """Return `each` poses of each of `people` people, whose heads are of the rigs in turn."""
    rng, heads = np.random.default_rng(seed), [_reduced(rig) for rig in rigs]
    points, intensity, at_rest = [], [], []
    for number in range(people):
        head = heads[number % len(heads)]
        rig, strength = head.rig, _STRENGTH[head.rig.name.split()[0]]
        person = rig.shape(draw_identity(rng, rig).weights)
        person = person - person[head.eyes].mean(axis=0)
        places = head.points.places(draw_brows(rng))
        at_rest.append(places.of(person) * [1, -1, 1])
        for _ in range(each):
            drawn = draw_intensity(rng)
            moves = dict(zip(facs.AUS, drawn.tolist(), strict=True)) | draw_distractions(rng)
            moved = {name: value * strength.get(name, 1.0) for name, value in moves.items()}
            lean = {name: float(rng.normal(0, ASYMMETRY)) for name in moves}
            face = rig.shape(au_blendshapes.offset_weights(rig.actions, moved, lean), person)
            drawn[facs.AUS.index("AU25")] = np.clip(head.lips.gap(face) / GAP_DM, 0, 1)
            turned = rotate_head(places.of(face), draw_pose(rng), np.ones(1))
            distance = draw_camera_distance(rng)
            points.append(turned[:, :2] * [1, -1] * distance / (distance - turned[:, 2:]))
            intensity.append(drawn)
    return ShapePoses(np.array(points, np.float32), np.array(intensity, np.float32), np.array(at_rest, np.float32))


@dataclass(frozen=True)
class _Head:
    """A rig of the few vertices that the points, the gap between the lips and the place of the eyes depend on."""

    rig: Rig
    points: face_points.RigPoints
    lips: LipColumns
    eyes: npt.NDArray[np.int64]


def _reduced(rig: Rig) -> _Head:
    points, lips, eyes = face_points.RigPoints(rig), au_blendshapes.lip_columns(rig), rig.parts["eyes"].vertices
    kept = np.unique(np.concatenate([points.vertices(), eyes, *lips.upper, *lips.lower]))
    every, offsets = np.arange(len(kept), dtype=np.int32), {}
    for name, (indices, deltas) in rig.offsets.items():
        full = np.zeros_like(rig.vertices, np.float32)
        full[indices] = deltas * ([_INWARD_BROW, 1, 1] if name.startswith("unit/browDown") else [1, 1, 1])
        offsets[name] = (every, full[kept])
    small = replace(rig, vertices=rig.vertices[kept], offsets=offsets)
    upper, lower = (
        tuple(np.searchsorted(kept, column).astype(np.int32) for column in columns)
        for columns in (lips.upper, lips.lower)
    )
    return _Head(small, points.renumbered(kept), LipColumns(upper, lower), np.searchsorted(kept, eyes))
