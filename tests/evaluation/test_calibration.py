import numpy as np
import pytest

from aupipe.evaluation import calibration, metrics
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
    assert fitted.macro_f1 > score(rough, calibration.thresholds.fit_grid(rough.labels, rough.probabilities)) + 0.1
    assert calibration.calibrate(clean).radius == 0


def test_never_worse_than_one_half_without_smoothing() -> None:
    for seed in range(5):
        rows = noisy(0.3, seed)
        fitted = calibration.calibrate(rows)
        assert fitted.macro_f1 >= score(rows, 0.5)
        assert fitted.macro_f1 == score(rows.smoothed(fitted.radius), fitted.thresholds)
