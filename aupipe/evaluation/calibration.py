"""Per-AU thresholds and the smoothing radius, fitted together on videos that the model was not trained on.

Each AU gets the threshold that maximizes its F1 on the rows that it is fitted on. Ties go to the threshold nearest 0.5,
then to the smaller one. 0.5 is always a candidate, so on these rows a fitted threshold is never worse than 0.5. An AU
without a positive keeps 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aupipe import facs
from aupipe.arrays import Bools, Floats, Labels
from aupipe.evaluation import metrics
from aupipe.evaluation.decision import reaches
from aupipe.evaluation.predictions import Predictions

RADII = (0, 2, 3, 5, 7, 10, 15)  # frames on either side
GRID_STEP = 0.005  # as in Tallec et al. (ABAW3, 2022)


@dataclass(frozen=True)
class Calibration:
    """Fitted thresholds and smoothing of one model."""

    thresholds: Floats  # (12,)
    radius: int
    macro_f1: float  # on the rows that it was fitted on, so optimistic


def calibrate(predictions: Predictions, radii: Sequence[int] = RADII) -> Calibration:
    """Return the radius whose best thresholds give the highest macro F1, on a tie the first one."""
    best: Calibration | None = None
    for radius in radii:
        smoothed = predictions.smoothed(radius)
        fitted = fit_grid(smoothed.labels, smoothed.probabilities)
        score = float(metrics.macro_f1(metrics.confusion(smoothed.labels, reaches(smoothed.probabilities, fitted))))
        if best is None or score > best.macro_f1:
            best = Calibration(fitted, radius, score)
    assert best is not None
    return best


def fit_grid(labels: Labels, probabilities: Floats, step: float = GRID_STEP) -> Floats:
    """Return thresholds (12,) from the grid step, 2·step, … below 1 for labels and probabilities (N, 12)."""
    # Integers over integers: 0.5 is exactly on the grid.
    thresholds = np.arange(1, round(1 / step)) / round(1 / step)
    best = np.full(labels.shape[1], 0.5)
    for column in range(labels.shape[1]):
        known = labels[:, column] >= 0
        values = probabilities[known, column]
        positive = labels[known, column] == 1
        if not positive.any():
            continue
        scores = _f1_at(values, positive, thresholds)
        ties = thresholds[scores == scores.max()]
        best[column] = ties[np.lexsort((ties, np.abs(ties - 0.5)))[0]]
    return best


def f1_curves(labels: Labels, probabilities: Floats, thresholds: Floats) -> Floats:
    """Return the F1 (K, 12) of each AU at each of the thresholds (K,); NaN for an AU without a positive."""
    curves = np.full((len(thresholds), labels.shape[1]), np.nan)
    for column in range(labels.shape[1]):
        known = labels[:, column] != facs.UNKNOWN
        positive = labels[known, column] == 1
        if positive.any():
            curves[:, column] = _f1_at(probabilities[known, column], positive, thresholds)
    return curves


def _f1_at(values: Floats, positive: Bools, thresholds: Floats) -> Floats:
    """Return the F1 (K,) of `decision.reaches` at each of the thresholds (K,), with one sort."""
    values, thresholds = values.astype(np.float32), thresholds.astype(np.float32)  # the precision of the rule
    order = np.argsort(values, kind="stable")
    below = np.searchsorted(values[order], thresholds, side="left")  # number of rows predicted negative
    misses = np.concatenate([[0], np.cumsum(positive[order])])[below]
    hits = positive.sum() - misses
    return 2 * hits / (hits + len(values) - below + misses)
