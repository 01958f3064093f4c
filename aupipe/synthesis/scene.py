"""The random scene of one video (camera, lights, background) and the movements of the head (pose, blinks, gaze)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis.au_schedule import segment

_DISTRACTIONS = ("wide", "sneer", "dimple", "pucker", "stretch", "funnel", "puff", "jaw_left", "jaw_right")
CAMERA_BELOW = 0.12  # of the camera's axis below the point midway between the eyes, as a fraction of the picture
_NECK = np.array([0.0, -1.0, -1.0], np.float32)  # Center of the head's rotation relative to the eyes (dm).


@dataclass(frozen=True)
class Lamp:
    """A distant light.

    Attributes:
        towards: (3,) unit vector to the lamp.
        color: (3,).
        softness: blur of its shadows as a fraction of the view.
    """

    towards: Floats
    color: Floats
    softness: float = 0.0


@dataclass(frozen=True)
class Scene:
    """The camera, lights and background of one video.

    Attributes:
        view_dm: height of the picture at the face.
        distance_dm: of the camera.
        shift: (2,) of the face from the center, as a fraction of the picture.
        lamps: lights with shadows.
        soft: large lights without shadows.
        ambient: (3,) light from all directions.
        wrap: wrap of diffuse light around the skin; 0 is Lambert's law.
        exposure: target brightness of the skin, 0..1.
        background: (H, W, 3) sRGB, 0..255.
        noise: standard deviation of the camera's grain, 0..255.
    """

    view_dm: float
    distance_dm: float
    shift: Floats
    lamps: tuple[Lamp, ...]
    soft: tuple[Lamp, ...]
    ambient: Floats
    wrap: float
    exposure: float
    background: Floats
    noise: float


def draw_scene(rng: np.random.Generator, size_px: int) -> Scene:
    """Return a random scene: up to two lamps with shadows, one to three without, and a near or a distant camera."""
    lamps = tuple(
        Lamp(_direction(rng), _tint(rng) * strength, float(rng.uniform(0.002, 0.02)))
        for strength in (rng.uniform(0.3, 1.6), rng.uniform(0.1, 0.8))[: rng.choice(3, p=[0.2, 0.55, 0.25])]
    )
    soft = tuple(Lamp(_direction(rng, 1.0), _tint(rng) * rng.uniform(0.1, 1.0)) for _ in range(rng.integers(1, 4)))
    return Scene(
        view_dm=float(rng.uniform(2.3, 3.1)),
        distance_dm=draw_camera_distance(rng),
        shift=rng.normal(0, 0.03, 2),
        lamps=lamps,
        soft=soft,
        ambient=_tint(rng) * rng.uniform(0.1, 0.5),
        wrap=float(rng.uniform(0, 0.4)),
        exposure=float(rng.uniform(0.12, 0.6)),
        background=_background(rng, size_px),
        noise=float(rng.uniform(0, 5)),
    )


def draw_camera_distance(rng: np.random.Generator) -> float:
    """Return the random distance of a near or a distant camera in dm."""
    return float(rng.choice([rng.uniform(4, 7), rng.uniform(7, 16)]))


def _direction(rng: np.random.Generator, spread: float = 0.7) -> Floats:
    """Return a random unit vector (3,) to a light, more often in front and above."""
    drawn = rng.normal([0, 0.35, 0.9], spread)
    return drawn / np.linalg.norm(drawn)


def _tint(rng: np.random.Generator) -> Floats:
    """Return a random color (3,) near white, from daylight to lamplight; 12 % are colored."""
    warmth = rng.normal(0, 0.12)
    tint = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.normal(1, 0.04, 3)
    return (tint if rng.random() < 0.88 else tint * rng.uniform(0.4, 1.3, 3)).clip(0.2, 2)


def _background(rng: np.random.Generator, size_px: int) -> Floats:
    """Return a random background (size, size, 3) of soft patches and a few straight-edged objects."""
    import cv2

    cells = int(rng.integers(2, 12))
    coarse = rng.uniform(15, 230) + rng.normal(0, 25, 3) + rng.normal(0, rng.uniform(3, 50), (cells, cells, 3))
    picture = cv2.resize(coarse.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(0, 6)):
        corners = rng.uniform(-0.3, 1.3, (4, 2)) * size_px
        cv2.fillConvexPoly(picture, cv2.convexHull(corners.astype(np.int32)), rng.uniform(0, 255, 3).tolist())
    blur = rng.uniform(0.5, 5)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), blur), 0, 255)


def draw_pose(rng: np.random.Generator, frames: int, fps: int) -> Floats:
    """Return yaw, pitch and roll (N, 3) in radians: a random mean pose and slow swaying about it."""
    time_s = np.arange(frames)[:, None] / fps
    held = rng.normal(0, np.deg2rad([11, 5, 4]))
    sway = np.sin(2 * np.pi * (rng.uniform(0.1, 0.5, 3) * time_s + rng.random(3)))
    nod = np.sin(2 * np.pi * (rng.uniform(0.5, 1.2, 3) * time_s + rng.random(3)))
    pose = held + sway * np.deg2rad([6, 3, 2.5]) * rng.random(3) + nod * np.deg2rad([1.5, 1.5, 0.7]) * rng.random(3)
    return pose.clip(-np.deg2rad([30, 15, 15]), np.deg2rad([30, 15, 15]))


def draw_movements(rng: np.random.Generator, frames: int, fps: int) -> dict[str, Floats]:
    """Return the intensity (N,) of each movement without a label: blinks, gaze and, in 35 % of videos, a grimace."""
    blink = np.zeros(frames)
    moment = rng.exponential(3.0)
    while moment * fps < frames:
        blink = np.maximum(blink, np.exp(-(((np.arange(frames) / fps - moment) / 0.07) ** 2)))
        moment += 0.4 + rng.exponential(3.0)
    across, up = _fixations(rng, frames, fps, 0.35), _fixations(rng, frames, fps, 0.25)
    movements = {
        "blink": blink,
        "look_left": across.clip(0), "look_right": (-across).clip(0),
        "look_up": up.clip(0), "look_down": (-up).clip(0),
    }  # fmt: skip
    if rng.random() < 0.35:
        grimace = str(rng.choice(_DISTRACTIONS))
        movements[grimace] = segment(rng, frames, fps, rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.8))
    return movements


def _fixations(rng: np.random.Generator, frames: int, fps: int, spread: float) -> Floats:
    """Return one coordinate (N,) of a gaze with fixations of about a second and jumps between them."""
    jumps = rng.random(frames) < 1 / fps
    targets = rng.normal(0, spread, frames).clip(-0.8, 0.8)
    return targets[np.maximum.accumulate(np.where(jumps, np.arange(frames), 0))]


def neck_weights(vertices: Floats) -> Floats:
    """Return (V, 1) the share of each vertex in the rotation of the head: 1 in the head, 0 at the shoulders."""
    height = vertices[:, 1] + 0.6 * (vertices[:, 2] + 0.5)
    ramp = ((height + 1.7) / 0.8).clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp))[:, None]


def rotate_head(vertices: Floats, pose: Floats, weights: Floats) -> Floats:
    """Return `vertices` (V, 3) with the head rotated about the neck by yaw, pitch and roll (3,) in radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(pose), np.sin(pose)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    rotated = (vertices - _NECK) @ (yaw @ pitch @ roll).T + _NECK
    return vertices + weights * (rotated - vertices)
