"""Properties of the plan: every AU in both splits, consistent labels, deterministic for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe import facs
from aupipe.synthesis.au_schedule import LEAST_FRAMES, VideoPlan, expected_labels, plan, segment, suppressed

pytestmark = pytest.mark.unit


def make(videos: int = 96, seed: int = 0) -> list[VideoPlan]:
    names = [f"{i:03d}" for i in range(videos)]
    return plan(seed=seed, names=names, frames=50, fps=25, expressions=facs.EXPRESSIONS)


@pytest.mark.parametrize(("videos", "seed"), [(96, 0), (96, 1), (36, 5), (48, 2)])
def test_every_au_has_positive_and_negative_people_in_both_splits(videos: int, seed: int) -> None:
    for split in ("train", "validation"):
        labels = np.stack([expected_labels(v.intensity) for v in make(videos, seed) if v.split == split])
        assert ((labels.sum(1) >= LEAST_FRAMES).sum(0) >= 3).all()
        assert (((~labels).sum(1) >= LEAST_FRAMES).sum(0) >= 3).all()


def test_frequent_aus_have_aff_wild2s_rates() -> None:
    rates = np.stack([expected_labels(v.intensity) for v in make()]).mean((0, 1))
    by_name = dict(zip(facs.AUS, rates, strict=True))
    for au, rate in {"AU06": 0.272, "AU07": 0.410, "AU10": 0.355, "AU12": 0.250, "AU25": 0.646}.items():
        assert by_name[au] == pytest.approx(rate, abs=0.1)


def test_a_third_is_for_validation_and_no_person_is_in_both_splits() -> None:
    plans = make(96)
    validation = {v.seed for v in plans if v.split == "validation"}
    assert len(validation) == 32
    assert not validation & {v.seed for v in plans if v.split == "train"}


def test_the_plan_depends_on_the_seed_alone() -> None:
    first, again, other = make(12, 3), make(12, 3), make(12, 4)
    assert all(np.array_equal(a.intensity, b.intensity) and a.seed == b.seed for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].intensity, other[0].intensity)


def test_a_segment_rises_holds_and_falls_without_jumps() -> None:
    for seed in range(20):
        curve = segment(np.random.default_rng(seed), 100, 25, 0.8, 1.0)
        assert curve.min() >= 0
        assert curve.max() <= 0.8 * 1.07
        assert np.abs(np.diff(curve)).max() < 0.35
        assert np.count_nonzero(np.diff((curve >= 0.25).astype(int))) <= 2  # It is present in one run.


def test_expressions_drive_their_aus() -> None:
    happy = [v for v in make() if (v.expression == facs.EXPRESSIONS.index("Happiness")).any()]
    assert len(happy) >= 10
    apex = [v.intensity[v.expression == facs.EXPRESSIONS.index("Happiness")].max(0) for v in happy]
    assert np.mean([a[facs.AUS.index("AU12")] >= 0.25 for a in apex]) > 0.8  # AU15 or AU24 may suppress it.
    assert np.mean([a[facs.AUS.index("AU06")] >= 0.25 for a in apex]) > 0.6


def test_pressed_lips_do_not_part() -> None:
    both = np.zeros((1, len(facs.AUS)), np.float32)
    both[0, [facs.AUS.index(au) for au in ("AU24", "AU25", "AU26")]] = [0.9, 0.8, 0.7]
    assert not expected_labels(suppressed(both))[0, facs.AUS.index("AU25")]
    assert expected_labels(suppressed(both))[0, facs.AUS.index("AU24")]


def test_some_frames_are_not_annotated() -> None:
    for split in ("train", "validation"):
        unknown = [int((~v.annotated).sum()) for v in make() if v.split == split]
        assert 0 < sum(unknown) < 0.02 * 50 * len(unknown)
