"""Smoothing radius and thresholds, fitted together on videos that the model did not learn from."""

from __future__ import annotations

from dataclasses import dataclass

from aupipe.arrays import Floats
from aupipe.evaluation import metrics, thresholds
from aupipe.evaluation.predictions import Predictions

RADII = (0, 2, 3, 5, 7, 10, 15)  # frames on either side


@dataclass(frozen=True)
class Calibration:
    thresholds: Floats  # (12,)
    radius: int
    macro_f1: float  # on the rows it was fitted on: optimistic


def calibrate(predictions: Predictions) -> Calibration:
    """The radius whose best thresholds give the highest macro F1; on a tie the smaller."""
    best: Calibration | None = None
    for radius in RADII:
        smoothed = predictions.smoothed(radius)
        fitted = thresholds.fit_grid(smoothed.labels, smoothed.probabilities)
        score = float(metrics.macro_f1(metrics.confusion(smoothed.labels, smoothed.probabilities >= fitted)))
        if best is None or score > best.macro_f1:
            best = Calibration(fitted, radius, score)
    assert best is not None
    return best
