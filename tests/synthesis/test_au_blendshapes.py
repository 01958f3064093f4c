"""Each AU moves what its name says, and the lips' gap tells parted from closed."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis import rig
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_blendshapes import ANNY, ANNY_AUS, ICT, ICT_AUS, LIPS_PARTED_DM, lip_columns, offset_weights
from aupipe.synthesis.rig import Rig

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def heads() -> Rig:
    return rig.load("anny")


def moved(heads: Rig, au: str) -> Floats:
    return heads.shape(offset_weights(heads.actions, {au: 1.0})) - heads.vertices


def test_the_map_covers_the_aus_and_the_rig_has_every_offset(heads: Rig) -> None:
    assert tuple(ANNY_AUS) == tuple(ICT_AUS) == facs.AUS
    assert ANNY.keys() == ICT.keys()
    for name in ANNY:
        assert np.abs(moved(heads, name)).max() > 0.01


def test_directions(heads: Rig) -> None:
    x, y, z = heads.vertices.T
    lips, front = heads.masks["lips"] > 0.5, z > 1.0
    corners = lips & (np.abs(x) > 0.22)
    brows = front & (y > 7.4) & (y < 7.65)
    for au, region, direction in (
        ("AU01", brows & (np.abs(x) < 0.2), +1),
        ("AU02", brows & (np.abs(x) > 0.35), +1),
        ("AU04", brows & (np.abs(x) < 0.3), -1),
        ("AU12", corners, +1),
        ("AU15", corners, -1),
        ("AU10", lips & (np.abs(x) < 0.1) & (y > 6.65), +1),
        ("AU26", lips & (np.abs(x) < 0.1) & (y < 6.55), -1),
    ):
        assert direction * moved(heads, au)[region, 1].mean() > 0.02, au


def test_au23_narrows_the_mouth_and_thins_the_lips(heads: Rig) -> None:
    lips = heads.masks["lips"] > 0.5
    before, after = heads.vertices[lips], (heads.vertices + moved(heads, "AU23"))[lips]
    assert np.ptp(after[:, 0]) < 0.85 * np.ptp(before[:, 0])
    assert np.ptp(after[:, 1]) < 0.9 * np.ptp(before[:, 1])


def test_left_and_right_get_their_shares() -> None:
    weights = offset_weights(ANNY, {"AU12": 0.5}, {"AU12": 0.1})
    assert weights == pytest.approx({"unit/mouthSmileLeft": 0.55, "unit/mouthSmileRight": 0.45})


@pytest.mark.parametrize("seed", range(5))
def test_lips_part_where_they_should_on_any_person(heads: Rig, seed: int) -> None:
    person, columns = draw_person(np.random.default_rng(seed), heads).vertices, lip_columns(heads)

    def parted(**intensity: float) -> bool:
        return columns.gap(heads.shape(offset_weights(heads.actions, intensity), person)) > LIPS_PARTED_DM

    assert parted(AU25=0.7)
    assert parted(AU26=0.25)
    assert parted(AU10=0.8)
    assert not parted()
    for au in ("AU01", "AU06", "AU07", "AU12", "AU15", "AU23", "AU24"):
        assert not parted(**{au: 1.0}), au
