"""Head meshes to pictures: a small Mitsuba scene, one thread, the same pixels for the same input.

Mitsuba 3 (Jakob et al. 2022), variant scalar_rgb: a CPU path tracer that needs no graphics driver and no compiler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aupipe.synthesis.appearance import Person
from aupipe.synthesis.paint import texture_coordinates
from aupipe.synthesis.rig import Floats, Rig
from aupipe.synthesis.scene import Scene

CAMERA_DISTANCE_DM = 9.0
IRIS_RADIUS, PUPIL_RADIUS = 0.46, 0.19  # parts of the eyeball's radius


class Renderer:
    """Renders one person in one scene; only vertices move from frame to frame."""

    def __init__(self, rig: Rig, person: Person, scene: Scene, *, size_px: int, samples: int) -> None:
        import drjit
        import mitsuba

        mitsuba.set_variant("scalar_rgb")
        drjit.set_thread_count(1)  # a Ray task has one CPU
        self._mitsuba: Any = mitsuba
        self._rig, self._person, self._scene = rig, person, scene
        self._size_px, self._samples = size_px, samples
        self._materials = {name: self._material(name) for name in rig.parts if name != "skin"}
        face = np.max(list(person.furrows.values()), axis=0) > 0
        rows, columns = np.flatnonzero(face.any(1)), np.flatnonzero(face.any(0))
        self._face = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        self._furrows = {name: mask[self._face] for name, mask in person.furrows.items()}
        self._uv = {name: texture_coordinates(rig.vertices[part.vertices]) for name, part in rig.parts.items()}
        self._uv["eyes"] = _eye_coordinates(rig)

    def frame(self, vertices: Floats, au: Mapping[str, float], seed: int) -> npt.NDArray[np.uint8]:
        """(size, size, 3) uint8 RGB of the head with `vertices` (V, 3) and the furrows of `au` (intensities 0..1)."""
        mi = self._mitsuba
        self._materials["skin"] = self._skin(au)
        view = self._scene.view_dm
        shift_x, shift_y = self._scene.shift * view
        target = [shift_x, shift_y - 0.12 * view, 0.0]
        eye = [target[0], target[1], CAMERA_DISTANCE_DM]
        scene = {
            "type": "scene",
            "integrator": {"type": "direct", "hide_emitters": True},
            "sensor": {
                "type": "perspective",
                "fov": float(np.rad2deg(2 * np.arctan(view / 2 / CAMERA_DISTANCE_DM))),
                "to_world": mi.ScalarTransform4f().look_at(
                    eye, target, [0, 1, 0]
                ),
                "film": {
                    "type": "hdrfilm", "width": self._size_px, "height": self._size_px,
                    "rfilter": {"type": "box"}, "pixel_format": "rgba",
                },
                "sampler": {"type": "independent", "sample_count": self._samples},
            },
            # Bounced paths find the sky, all shadow rays go to the lamp: a third of the noise of drawing between them.
            "sky": {"type": "constant", "radiance": _rgb(self._scene.ambient), "sampling_weight": 0.0},
            "key": {
                "type": "directional", "direction": self._scene.light.tolist(),
                "irradiance": _rgb(self._scene.light_colour),
            },
        }  # fmt: skip
        scene |= {name: self._mesh(name, vertices) for name in self._rig.parts}
        pixels = np.asarray(mi.render(mi.load_dict(scene), seed=seed), np.float32)
        alpha = pixels[..., 3:].clip(0, 1)
        head = 255 * pixels[..., :3].clip(0, 1) ** np.float32(1 / 2.2)
        picture = head * alpha + self._scene.background * (1 - alpha)
        grain = np.random.default_rng(seed).normal(0, self._scene.noise, (*pixels.shape[:2], 1))
        return (picture + grain).clip(0, 255).astype(np.uint8)

    def _mesh(self, name: str, vertices: Floats) -> Any:
        mi, part = self._mitsuba, self._rig.parts[name]
        properties = mi.Properties()
        properties["mesh_bsdf"] = self._materials[name]
        mesh = mi.Mesh(
            name, len(part.vertices), len(part.faces), properties, has_vertex_normals=True, has_vertex_texcoords=True
        )
        buffers = mi.traverse(mesh)
        buffers["vertex_positions"] = vertices[part.vertices].ravel()
        buffers["faces"] = part.faces.ravel()
        buffers["vertex_texcoords"] = self._uv[name].ravel()
        buffers.update()  # also computes the normals
        return mesh

    def _skin(self, au: Mapping[str, float]) -> Any:
        """The skin's material with furrows as deep as the AUs are strong."""
        swallowed = sum((au.get(name, 0.0) * mask for name, mask in self._furrows.items()), np.float32(0))
        picture = self._person.skin.copy()
        picture[self._face] *= 1 - np.minimum(swallowed, 0.9)[..., None]
        return self._diffuse(self._bitmap(picture))

    def _material(self, name: str) -> Any:
        texture = name == "eyes"
        return self._diffuse(self._bitmap(_eye_texture(self._person)) if texture else _rgb(self._person.colours[name]))

    def _diffuse(self, reflectance: dict[str, Any]) -> Any:
        return self._mitsuba.load_dict({"type": "twosided", "front": {"type": "diffuse", "reflectance": reflectance}})

    def _bitmap(self, picture: Floats) -> dict[str, Any]:
        return {"type": "bitmap", "bitmap": self._mitsuba.Bitmap(picture), "raw": True, "wrap_mode": "clamp"}


def _rgb(colour: Floats) -> dict[str, Any]:
    return {"type": "rgb", "value": [float(x) for x in colour]}


def _eye_coordinates(rig: Rig) -> Floats:
    """(n, 2): each eye seen from the front in its base shape, the eyeball's outline at 0 and 1."""
    points = rig.vertices[rig.parts["eyes"].vertices]
    uv = np.empty((len(points), 2), np.float32)
    for side in (points[:, 0] > 0, points[:, 0] < 0):
        low, high = points[side].min(0), points[side].max(0)
        uv[side] = ((points[side] - low) / (high - low))[:, :2]
    return uv


def _eye_texture(person: Person, size: int = 128) -> Floats:
    """(size, size, 3): sclera, iris with a dark rim, pupil."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    radius = np.hypot(*np.meshgrid(axis, axis)).astype(np.float32)
    picture = np.broadcast_to(person.colours["eyes"], (size, size, 3)).copy()
    iris = np.where(radius[..., None] > IRIS_RADIUS * 0.85, 0.5, 1.0) * person.colours["iris"]
    picture = np.where(radius[..., None] < IRIS_RADIUS, iris, picture)
    return np.where(radius[..., None] < PUPIL_RADIUS, np.float32(0.005), picture).astype(np.float32)
