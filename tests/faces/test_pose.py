"""Head pose: exact for projections of the mean face, with OpenFace's signs."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.faces.pose import MEAN_FACE, angles, head_pose

pytestmark = pytest.mark.unit


def turn(axis: int, degrees: float) -> np.ndarray:
    """Return the right-handed rotation about one axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation, (i, j) = np.eye(3), [(1, 2), (2, 0), (0, 1)][axis]
    rotation[i, i], rotation[i, j], rotation[j, i], rotation[j, j] = c, -s, s, c
    return rotation


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    return turn(0, pitch) @ turn(1, yaw) @ turn(2, roll)


@pytest.mark.parametrize("exact", [(0, 0, 0), (30, 0, 0), (0, -20, 0), (0, 0, 25), (50, 15, -30), (-44, 20, 90)])
def test_a_scaled_projection_of_the_mean_face_gives_its_pose(exact: tuple[float, float, float]) -> None:
    projected = 37.5 * (MEAN_FACE @ rotation_of(*exact).T)[:, :2] + [640, 360]
    assert head_pose(projected.astype(np.float32)) == pytest.approx(exact, abs=1e-3)
    assert angles(rotation_of(*exact)) == pytest.approx(exact)


def test_signs() -> None:
    frontal = MEAN_FACE[:, :2]
    nose, right_eye = np.zeros((5, 2)), np.zeros((5, 2))
    nose[2] = [0.1, 0]
    right_eye[[1, 4]] = [0, 0.1]
    pose = {name: head_pose(frontal + moved) for name, moved in (("nose", nose), ("right_eye", right_eye))}
    assert pose["nose"] is not None
    assert pose["right_eye"] is not None
    assert pose["nose"][0] < -10  # The nose to the right of the picture is negative yaw.
    assert pose["right_eye"][2] > 3  # The right half of the picture lower is positive roll.
    down = head_pose(frontal + nose[:, ::-1])
    assert down is not None
    assert down[1] > 10  # The nose lower is positive pitch.


def test_the_mean_face_is_symmetric_and_its_nose_is_nearest() -> None:
    assert MEAN_FACE[[1, 0, 2, 4, 3]] * [-1, 1, 1] == pytest.approx(MEAN_FACE)
    assert MEAN_FACE[:, 2].argmin() == 2
    assert np.linalg.norm(MEAN_FACE[0] - MEAN_FACE[1]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.arange(10.0).reshape(5, 2)])
def test_points_on_a_line_have_no_pose(points: np.ndarray) -> None:
    assert head_pose(points) is None
