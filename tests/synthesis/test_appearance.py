"""A seed determines a person, and the texture fits the face."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.synthesis import rig
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.skin_texture import FURROWS, TEXTURE_SIZE

pytestmark = pytest.mark.unit


def test_a_seed_is_a_person() -> None:
    heads = rig.load("anny")
    first, again, other = (draw_person(np.random.default_rng(seed), heads) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.skin, again.skin)
    assert np.abs(first.vertices - other.vertices).max() > 0.02
    assert np.abs(first.skin.mean((0, 1)) - other.skin.mean((0, 1))).max() > 0.005
    eyes = first.vertices[heads.parts["eyes"].vertices]
    assert np.abs(eyes.mean(0)).max() < 1e-5  # The origin is midway between the eyes.
    assert 0.5 < eyes[eyes[:, 0] > 0].mean(0)[0] - eyes[eyes[:, 0] < 0].mean(0)[0] < 0.8


def test_the_texture_is_a_reflectance_and_furrows_are_in_the_face() -> None:
    person = draw_person(np.random.default_rng(0), rig.load("anny"))
    assert person.skin.shape == (*TEXTURE_SIZE, 3)
    assert 0 < person.skin.min() <= person.skin.max() < 1
    assert set(person.furrows) == set(FURROWS)
    for mask in person.furrows.values():
        columns = np.flatnonzero(mask.any(0)) / TEXTURE_SIZE[1]
        assert 0.25 < columns.min() < 0.5 < columns.max() < 0.75  # On both sides, and none behind the ears.
        assert 0 < mask.max() < 0.9
