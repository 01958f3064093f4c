"""`bench.py pose`: the exact angles have the signs of the table, and the mean face is recovered from projections."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.benchmarks import pose
from aupipe.errors import ConfigError
from aupipe.faces.pose import MEAN_FACE, angles, head_pose
from aupipe.synthesis.scene import rotate_head

pytestmark = pytest.mark.unit


def test_exact_angles_are_those_of_the_rotated_head() -> None:
    rng = np.random.default_rng(0)
    for drawn in rng.uniform(-0.6, 0.6, (8, 3)):
        turned = rotate_head(MEAN_FACE * [1, -1, -1], drawn, np.ones(1)) * [1, -1, -1]
        assert head_pose(30 * turned[:, :2]) == pytest.approx(angles(pose._rotation(drawn)), abs=1e-6)


def test_the_mean_face_is_recovered() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.uniform(-0.6, 0.6, (40, 3))
    rotations = np.array([pose._rotation(each) for each in drawn])
    other = MEAN_FACE * [1.1, 0.9, 1.3]
    other /= np.linalg.norm(other[0] - other[1])
    points = np.einsum("pk,nik->npi", other, rotations)[..., :2] * rng.uniform(20, 90, (40, 1, 1)) + 200
    exact = np.array([angles(each) for each in rotations])
    assert pose._mean_face(exact, points) == pytest.approx(other, abs=2e-3)


def test_too_few_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="--heads 9: must be at least 40"):
        pose.measure(9, 0)
