"""Rendering of head meshes: `raster` finds the visible triangles; lamps, their shadows and the sky light them.

This is not a path tracer: there is no indirect light. Hollows are darkened by their depth instead (Luft, Colditz,
Deussen: Image Enhancement by Unsharp Masking the Depth Buffer, 2006), which renders ten times as many people in the
same time. The output is deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.synthesis.appearance import Person
from aupipe.synthesis.raster import rasterize, vertex_normals
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.scene import CAMERA_BELOW, Lamp, Scene, neck_weights, rotate_head

FINER = 1.5  # Factor of supersampling: the picture is rendered larger, then reduced.
IRIS_RADIUS, PUPIL_RADIUS = 0.46, 0.19  # Fractions of the eyeball's radius.
_SHADOW_PX, _SHADOW_DM = 192, 3.4  # Size of a lamp's shadow map.
_SHADOW_BIAS_DM = 0.05
_HOLLOW_DM = 0.06  # Depth at which a hollow receives little light from the sky.
# Specular strength and Blinn's exponent of parts other than the skin.
_SHINE = {"eyes": (0.6, 250.0), "teeth": (0.25, 60.0), "tongue": (0.2, 30.0), "glasses": (0.3, 40.0)}
_OF_SKY = {"mouth": 0.35, "tongue": 0.35, "teeth": 0.7}  # share of its light that parts inside the mouth receive


class Renderer:
    """A renderer of one person in one scene. Only vertices change from frame to frame."""

    def __init__(self, rig: Rig, person: Person, scene: Scene, *, size_px: int) -> None:
        cv2.setNumThreads(1)
        self._person, self._scene = person, scene
        self._size_px, self._size = size_px, round(size_px * FINER)
        self._names = list(rig.parts)
        parts = [(part.vertices, part.faces) for part in rig.parts.values()]
        count = len(rig.vertices)
        for name, accessory in person.accessories.items():  # Their vertices follow those of the rig.
            self._names.append(name)
            parts.append((np.arange(count, count + len(accessory.vertices), dtype=np.int32), accessory.faces))
            count += len(accessory.vertices)
        self._vertices = np.concatenate([vertices for vertices, _ in parts])
        starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
        self._faces: Ints = np.concatenate(
            [faces + start for (_, faces), start in zip(parts, starts[:-1], strict=True)]
        ).astype(np.int32)
        self._part_of_face: Ints = np.repeat(
            np.arange(len(parts), dtype=np.int32), [len(faces) for _, faces in parts]
        ).astype(np.int32)
        self._uv = np.concatenate(
            [self._coordinates(rig, name, len(part[0])) for name, part in zip(self._names, parts, strict=True)]
        )
        self._neck = neck_weights(person.vertices)
        self._eye = _eye_texture(person)
        face = np.max(list(person.furrows.values()), axis=0) > 0
        rows, columns = np.flatnonzero(face.any(1)), np.flatnonzero(face.any(0))
        self._face = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        self._furrows = {name: mask[self._face] for name, mask in person.furrows.items()}

    def frame(
        self, vertices: Floats, au: Mapping[str, float], seed: int, pose: Floats | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return one frame, (size, size, 3) uint8 RGB.

        Args:
            vertices: (V, 3), before the rotation of the head.
            au: intensities 0..1, which determine the furrows.
            seed: of the camera's grain.
            pose: (3,) yaw, pitch and roll in radians; default: frontal.
        """
        scene, size, pose = self._scene, self._size, np.zeros(3) if pose is None else pose
        points = rotate_head(vertices, pose, self._neck)
        accessories = [rotate_head(each.vertices, pose, np.ones(1)) for each in self._person.accessories.values()]
        points = np.concatenate([points, *accessories])
        points = points[self._vertices].astype(np.float32)
        triangle, shares, depth = rasterize(self._projected(points), self._faces, size)
        inside = triangle >= 0
        faces, weights = triangle[inside], shares[inside]
        corners = self._faces[faces]
        second, third = weights[:, :1], weights[:, 1:]
        first = 1 - second - third

        def interpolate(values: Floats) -> Floats:
            return first * values[corners[:, 0]] + second * values[corners[:, 1]] + third * values[corners[:, 2]]

        place, uv = interpolate(points), interpolate(self._uv)
        normal = interpolate(vertex_normals(points, self._faces))
        view = _unit(np.array([*self._target(), scene.distance_dm], np.float32) - place)
        normal = _unit(normal * np.sign(_dot(normal, view)))
        part = self._part_of_face[faces]
        color = self._reflectance(part, uv, au)
        strength, exponent = self._shine(part)
        light = self._sky(normal, part) * _hollows(depth, inside)[:, None]
        gloss = np.zeros_like(light)
        for lamp in scene.lamps:
            lit = self._reached(lamp, points, place, inside)[:, None]
            towards = (normal @ lamp.towards.astype(np.float32))[:, None]
            light += lit * lamp.color.astype(np.float32) * ((towards + scene.wrap) / (1 + scene.wrap)).clip(0)
            half = _unit(view + lamp.towards.astype(np.float32))
            gloss += lit * lamp.color.astype(np.float32) * _dot(normal, half).clip(0) ** exponent[:, None]
        linear = color * light + strength[:, None] * gloss
        return self._developed(linear, inside, part == self._names.index("skin"), seed)

    def placed(self, vertices: Floats, pose: Floats) -> Floats:
        """Return the positions (V, 2) in the picture, in pixels; the center of the first pixel is at 0."""
        points = rotate_head(vertices, pose, self._neck).astype(np.float32)
        return self._projected(points)[:, :2] * (self._size_px / self._size) - 0.5

    def _target(self) -> tuple[float, float]:
        shift_x, shift_y = (self._scene.shift * self._scene.view_dm).tolist()
        return shift_x, shift_y - CAMERA_BELOW * self._scene.view_dm

    def _projected(self, points: Floats) -> Floats:
        """Return (n, 3): x and y in pixels of the supersampled picture, and z."""
        x, y = self._target()
        distance = self._scene.distance_dm
        scale = self._size / self._scene.view_dm * distance / (distance - points[:, 2])
        across, down = (points[:, 0] - x) * scale, (y - points[:, 1]) * scale
        return np.stack([across + self._size / 2, down + self._size / 2, points[:, 2]], 1)

    def _coordinates(self, rig: Rig, name: str, count: int) -> Floats:
        if name == "skin":
            return rig.paint[rig.parts["skin"].vertices].astype(np.float32)
        if name in self._person.accessories:
            return self._person.accessories[name].uv
        return _eye_coordinates(rig) if name == "eyes" else np.zeros((count, 2), np.float32)

    def _reflectance(self, part: Ints, uv: Floats, au: Mapping[str, float]) -> Floats:
        """Return the reflectance (P, 3) of the pixels."""
        colors = [self._person.colors.get(name, np.zeros(3)) for name in self._names]
        out = np.array(colors, np.float32)[part]
        pictures = {"skin": self._skin(au), "eyes": self._eye}
        if "hair" in self._person.accessories:
            pictures["hair"] = self._person.strands
        for name, picture in pictures.items():
            chosen = part == self._names.index(name)
            rows, columns = picture.shape[:2]
            at = (uv[chosen] * np.array([columns, rows], np.float32) - np.float32(0.5))[:, None]
            # OpenCV's remap accepts at most 32767 rows.
            found = [
                cv2.remap(picture, chunk, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
                for chunk in np.split(at, range(30000, len(at), 30000)) if len(chunk)
            ]  # fmt: skip
            if found:
                out[chosen] = np.concatenate(found)
        return out

    def _skin(self, au: Mapping[str, float]) -> Floats:
        """Return the texture of the skin with furrows in proportion to the AU intensities."""
        absorbed = sum((au.get(name, 0.0) * mask for name, mask in self._furrows.items()), np.float32(0))
        picture = self._person.skin.copy()
        picture[self._face] *= (1 - np.minimum(absorbed, 0.9))[..., None]
        return picture

    def _shine(self, part: Ints) -> tuple[Floats, Floats]:
        table = [_SHINE.get(name, (self._person.gloss, self._person.shine)) for name in self._names]
        strength, exponent = np.array(table, np.float32).T
        return strength[part], exponent[part]

    def _sky(self, normal: Floats, part: Ints) -> Floats:
        """Return the soft light (P, 3) from all directions, with more from those of the soft lamps."""
        light = np.broadcast_to(self._scene.ambient.astype(np.float32), normal.shape).copy()
        for lamp in self._scene.soft:
            light += (
                lamp.color.astype(np.float32) * (0.5 + 0.5 * (normal @ lamp.towards.astype(np.float32))[:, None]) ** 2
            )
        dim = np.array([_OF_SKY.get(name, 1.0) for name in self._names], np.float32)
        return light * dim[part][:, None]

    def _reached(self, lamp: Lamp, points: Floats, place: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
        """Return (P,): 0 in the lamp's shadow, 1 in its light."""
        side = np.cross([0.0, 1.0, 0.0], lamp.towards)
        side /= np.linalg.norm(side)
        axes = np.stack([side, -np.cross(lamp.towards, side), lamp.towards], 1).astype(np.float32)
        scale = np.array([_SHADOW_PX / _SHADOW_DM, _SHADOW_PX / _SHADOW_DM, 1], np.float32)
        middle = np.array([_SHADOW_PX / 2, _SHADOW_PX / 2, 0], np.float32)
        nearest = rasterize(points @ axes * scale + middle, self._faces, _SHADOW_PX)[2]
        at = place @ axes * scale + middle
        column, row = (at[:, k].astype(int).clip(0, _SHADOW_PX - 1) for k in (0, 1))
        lit = np.zeros(inside.shape, np.float32)
        lit[inside] = nearest[row, column] <= at[:, 2] + _SHADOW_BIAS_DM
        soft = lamp.softness * self._size
        # The blur is in picture space and normalized over the head, so the background does not leak in.
        over = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), soft)
        return np.asarray(cv2.GaussianBlur(lit, (0, 0), soft))[inside] / over[inside]

    def _developed(
        self, linear: Floats, inside: npt.NDArray[np.bool_], skin: npt.NDArray[np.bool_], seed: int
    ) -> npt.NDArray[np.uint8]:
        """Return the picture of a simulated camera: partial exposure compensation for the skin, gamma and grain."""
        scene = self._scene
        bright = np.quantile(linear[skin][::7], 0.75) if skin.any() else 0.5
        exposed = linear * (scene.exposure / max(float(bright), 1e-3)) ** 0.7
        size = self._size_px
        head = np.zeros((*inside.shape, 3), np.float32)
        head[inside] = 255 * exposed.clip(0, 1) ** np.float32(1 / 2.2)
        alpha = cv2.resize(inside.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)[..., None]
        head = cv2.resize(head, (size, size), interpolation=cv2.INTER_AREA)
        grain = np.random.default_rng(seed).normal(0, scene.noise, (size, size, 1))
        return (head + scene.background * (1 - alpha) + grain).clip(0, 255).astype(np.uint8)


def _hollows(depth: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """Return (P,), 0..1: the visible fraction of the sky; lower where the surroundings are nearer to the viewer."""
    floor = float(depth[inside].min())
    filled = np.where(inside, depth, floor)
    sigma = depth.shape[0] / 40
    over = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma)
    around = cv2.GaussianBlur((filled - floor) * inside, (0, 0), sigma)[inside] / over[inside] + floor
    behind = (around - filled[inside]).clip(0)
    return np.exp(-behind / _HOLLOW_DM).clip(0.25, 1)


def _dot(first: Floats, second: Floats) -> Floats:
    """Return the dot products (n, 1) of (n, 3) and (n, 3). NumPy's sum over three numbers takes ten times as long."""
    return (first[:, 0] * second[:, 0] + first[:, 1] * second[:, 1] + first[:, 2] * second[:, 2])[:, None]


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.sqrt(_dot(vectors, vectors)), 1e-6)


def _eye_coordinates(rig: Rig) -> Floats:
    """Return (n, 2): frontal texture coordinates of each eye in its base shape; the eyeball's outline is at 0 and 1."""
    points = rig.vertices[rig.parts["eyes"].vertices]
    uv = np.empty((len(points), 2), np.float32)
    for side in (points[:, 0] > 0, points[:, 0] < 0):
        low, high = points[side].min(0), points[side].max(0)
        uv[side] = ((points[side] - low) / (high - low))[:, :2]
    return uv


def _eye_texture(person: Person, size: int = 128) -> Floats:
    """Return the texture (size, size, 3) of an eye: sclera, iris with a dark rim, pupil."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    radius = np.hypot(*np.meshgrid(axis, axis)).astype(np.float32)
    picture = np.broadcast_to(person.colors["eyes"], (size, size, 3)).copy()
    iris = np.where(radius[..., None] > IRIS_RADIUS * 0.85, 0.5, 1.0) * person.colors["iris"]
    picture = np.where(radius[..., None] < IRIS_RADIUS, iris, picture)
    return np.where(radius[..., None] < PUPIL_RADIUS, np.float32(0.005), picture).astype(np.float32)
