"""What stands round a head in one video, and how the head moves: camera, lights, background, pose, blinks, gaze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aupipe.synthesis.activations import segment
from aupipe.synthesis.rig import Floats

_DISTRACTIONS = ("wide", "sneer", "dimple", "pucker", "stretch", "funnel", "puff", "jaw_left", "jaw_right")
_NECK = np.array([0.0, -1.0, -1.0], np.float32)  # where a head turns, from the middle between the eyes (dm)


@dataclass(frozen=True)
class Scene:
    """view_dm: height of the picture at the face;  shift: (2,) of the face from the middle, as a part of the picture;
    light: (3,) direction that it travels;  light_colour, ambient: (3,);  background: (H, W, 3) sRGB 0..255;
    noise: standard deviation of the camera's grain, 0..255."""

    view_dm: float
    shift: Floats
    light: Floats
    light_colour: Floats
    ambient: Floats
    background: Floats
    noise: float


def draw_scene(rng: np.random.Generator, size_px: int) -> Scene:
    """A random scene: soft light from all round, one lamp in front, a blurred background."""
    import cv2

    warmth = np.array([1.0, rng.uniform(0.85, 1.0), rng.uniform(0.7, 1.1)])
    azimuth, elevation = rng.uniform(-1.1, 1.1), rng.uniform(-0.1, 0.9)
    towards_lamp = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    cells = int(rng.integers(2, 9))
    coarse = rng.uniform(15, 230) + rng.normal(0, 18, 3) + rng.normal(0, rng.uniform(3, 25), (cells, cells, 3))
    background = cv2.resize(coarse.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return Scene(
        view_dm=float(rng.uniform(2.4, 3.1)),
        shift=rng.normal(0, 0.03, 2),
        light=-np.array(towards_lamp),
        light_colour=warmth * rng.uniform(1.2, 3.0),
        ambient=rng.uniform(0.25, 0.6) * rng.uniform(0.9, 1.1, 3),
        background=np.clip(background, 0, 255),
        noise=float(rng.uniform(0, 4)),
    )


def draw_pose(rng: np.random.Generator, frames: int, fps: int) -> Floats:
    """(N, 3) radians of yaw, pitch and roll: a way to hold the head and slow swaying about it."""
    time_s = np.arange(frames)[:, None] / fps
    held = rng.normal(0, np.deg2rad([11, 5, 4]))
    sway = np.sin(2 * np.pi * (rng.uniform(0.1, 0.5, 3) * time_s + rng.random(3)))
    nod = np.sin(2 * np.pi * (rng.uniform(0.5, 1.2, 3) * time_s + rng.random(3)))
    pose = held + sway * np.deg2rad([6, 3, 2.5]) * rng.random(3) + nod * np.deg2rad([1.5, 1.5, 0.7]) * rng.random(3)
    return pose.clip(-np.deg2rad([30, 15, 15]), np.deg2rad([30, 15, 15]))


def draw_movements(rng: np.random.Generator, frames: int, fps: int) -> dict[str, Floats]:
    """(N,) intensity of each movement that carries no label: blinks, gaze, now and then a grimace."""
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
    """(N,) of a gaze that rests for about a second and jumps."""
    jumps = rng.random(frames) < 1 / fps
    targets = rng.normal(0, spread, frames).clip(-0.8, 0.8)
    return targets[np.maximum.accumulate(np.where(jumps, np.arange(frames), 0))]


def neck_weights(vertices: Floats) -> Floats:
    """(V, 1) part that each vertex takes in the head's rotation: 1 in the head, 0 at the shoulders."""
    height = vertices[:, 1] + 0.6 * (vertices[:, 2] + 0.5)
    ramp = ((height + 1.7) / 0.8).clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp))[:, None]


def turned(vertices: Floats, pose: Floats, weights: Floats) -> Floats:
    """(V, 3) `vertices` with the head turned about the neck by yaw, pitch and roll (3,)."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(pose), np.sin(pose)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    rotated = (vertices - _NECK) @ (yaw @ pitch @ roll).T + _NECK
    return vertices + weights * (rotated - vertices)
