from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.evaluation import calibration, decision, metrics
from aupipe.evaluation.predictions import Predictions

pytestmark = pytest.mark.unit


def noisy(noise: float, seed: int = 0) -> Predictions:
    """Four videos of 100 frames, labels in runs of 25, probabilities with noise from frame to frame."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 2, (16, 12)), 25, axis=0).astype(np.int8)
    return Predictions(
        video_id=np.repeat(np.array([f"{v}.mp4" for v in range(4)], dtype=object), 100),
        person=np.full(400, "", dtype=object),
        frame=np.tile(np.arange(1, 101), 4),
        labels=labels,
        probabilities=np.clip(0.2 + 0.2 * labels + rng.normal(0, noise, labels.shape), 0, 1),
    )


def score(predictions: Predictions, at: np.ndarray | float) -> float:
    return float(metrics.macro_f1(metrics.confusion(predictions.labels, predictions.probabilities >= at)))


def test_finds_smoothing_where_it_helps_and_none_where_it_does_not() -> None:
    rough, clean = noisy(0.15), noisy(0.0)
    fitted = calibration.calibrate(rough)
    assert fitted.radius in calibration.RADII[1:]
    assert fitted.macro_f1 > score(rough, calibration.fit_grid(rough.labels, rough.probabilities)) + 0.1
    assert calibration.calibrate(clean).radius == 0


def test_only_the_given_radii_are_candidates() -> None:
    rough = noisy(0.15)
    assert calibration.calibrate(rough, [0]).radius == 0
    assert np.array_equal(
        calibration.calibrate(rough, [0]).thresholds, calibration.fit_grid(rough.labels, rough.probabilities)
    )
    assert calibration.calibrate(rough, [1, 12]).radius in (1, 12)


def test_never_worse_than_one_half_without_smoothing() -> None:
    for seed in range(5):
        rows = noisy(0.3, seed)
        fitted = calibration.calibrate(rows)
        assert fitted.macro_f1 >= score(rows, 0.5)
        assert fitted.macro_f1 == score(rows.smoothed(fitted.radius), fitted.thresholds)


def f1(labels: np.ndarray, probabilities: np.ndarray, at: np.ndarray | float) -> np.ndarray:
    return metrics.f1(metrics.confusion(labels, probabilities >= at))


def random_rows(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1, 0, 1], (rows, 12), p=[0.1, 0.6, 0.3]).astype(np.int8)
    probabilities = np.clip(rng.normal(0.3 + 0.2 * (labels == 1), 0.2), 0, 1)
    return labels, np.round(probabilities, int(rng.integers(1, 8)))


@given(st.integers(0, 10_000), st.integers(1, 80))
def test_the_grid_is_never_worse_than_one_half(seed: int, rows: int) -> None:
    labels, probabilities = random_rows(seed, rows)
    half = f1(labels, probabilities, 0.5)
    grid = f1(labels, probabilities, calibration.fit_grid(labels, probabilities))
    assert (grid >= half).all()


@given(st.integers(0, 10_000))
def test_grid_search_equals_brute_force_with_its_tie_rule(seed: int) -> None:
    labels, probabilities = random_rows(seed, 30)
    grid = np.arange(1, 20) / 20
    all_scores = np.stack([f1(labels, probabilities, t) for t in grid])
    fitted = calibration.fit_grid(labels, probabilities, step=0.05)
    for au in range(12):
        best = grid[all_scores[:, au] == all_scores[:, au].max()]
        assert fitted[au] == min(best, key=lambda t: (abs(t - 0.5), t))


def test_ties_go_to_the_smaller_of_two_equally_near() -> None:
    labels = np.ones((1, 12), dtype=np.int8)
    assert (calibration.fit_grid(labels, np.full((1, 12), 0.5), step=0.2) == 0.4).all()


def test_au_without_a_positive_keeps_one_half() -> None:
    labels = np.zeros((5, 12), dtype=np.int8)
    labels[:, 3] = -1
    probabilities = np.random.default_rng(0).random((5, 12))
    assert (calibration.fit_grid(labels, probabilities) == 0.5).all()


def test_fits_with_the_decisions_of_the_rule() -> None:
    rng = np.random.default_rng(0)
    grid = (np.arange(1, 200) / 200).astype(np.float32)
    exact = rng.choice(grid, (400, 12))  # at a threshold of the grid in float32, below or above it in float64
    labels = (rng.random(exact.shape) < 0.1 + 0.8 * (exact > 0.42)).astype(np.int8)
    rows = replace(noisy(0), labels=labels, probabilities=exact.astype(np.float64))
    fitted = calibration.fit_grid(rows.labels, rows.probabilities)
    _, decided = decision.apply_rule([rows.probabilities], [fitted], "mean")
    found = metrics.f1(metrics.confusion(labels, decided))
    for other in grid.astype(np.float64):
        _, by_other = decision.apply_rule([rows.probabilities], [np.full(12, other)], "mean")
        assert (found >= metrics.f1(metrics.confusion(labels, by_other))).all()
    assert (decided != (rows.probabilities >= fitted)).any()  # float64 would decide otherwise
    member = decision.Member(rows, fitted, 0)
    with_thresholds = decision.decide([member], "mean")["with_thresholds"]
    assert np.array_equal(with_thresholds.decided, decided)
    both = calibration.calibrate(rows)
    last = decision.decide([decision.Member(rows, both.thresholds, both.radius)], "mean")
    assert both.macro_f1 == float(metrics.macro_f1(metrics.confusion(labels, [*last.values()][-1].decided)))


def test_candidate_radii_and_grid_are_those_of_the_methods() -> None:
    assert calibration.RADII == (0, 2, 3, 5, 7, 10, 15)
    assert calibration.GRID_STEP == 0.005
