"""Scores of binary AU predictions, from counts that add up over batches, videos and workers.

Counts are int64 arrays (…, 12, 4): true positives, false positives, false negatives and true negatives of each AU over
its labeled entries. Labels of −1 are not counted. A ratio whose denominator is 0 is 0 (scikit-learn's zero_division=0).
A mean over AUs or classes leaves out those without any label, as in data sets that label some of them only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.arrays import Bools, Floats, Ints, Labels


def confusion(labels: Labels, predicted: Bools) -> Ints:
    """Return the counts (12, 4) of labels (N, 12) in {0, 1, −1} and predictions (N, 12)."""
    positive, negative = labels == 1, labels == 0
    cells = (positive & predicted, negative & predicted, positive & ~predicted, negative & ~predicted)
    return np.stack([cell.sum(axis=0, dtype=np.int64) for cell in cells], axis=-1)


def confusion_by(codes: Ints, n_groups: int, labels: Labels, predicted: Bools) -> Ints:
    """Return the counts (groups, 12, 4) of the rows of each group; codes (N,) in 0 … groups−1."""
    result = np.zeros((n_groups, labels.shape[1], 4), dtype=np.int64)
    positive, negative = labels == 1, labels == 0
    cells = (positive & predicted, negative & predicted, positive & ~predicted, negative & ~predicted)
    for cell, values in enumerate(cells):
        np.add.at(result[..., cell], codes, values)
    return result


def f1(counts: Ints) -> Floats:
    """Return the F1 of the positive class of each AU (…, 12)."""
    tp, fp, fn, _ = _cells(counts)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def precision(counts: Ints) -> Floats:
    tp, fp, _, _ = _cells(counts)
    return _ratio(tp, tp + fp)


def recall(counts: Ints) -> Floats:
    tp, _, fn, _ = _cells(counts)
    return _ratio(tp, tp + fn)


def macro_f1(counts: Ints) -> Floats:
    """Return the challenge's score (…): mean over labeled AUs of the F1 of the positive class."""
    return _over_labeled(f1(counts), counts)


def are_labeled(counts: Ints) -> Bools:
    """Return whether each AU has a label (…, 12)."""
    labeled: Bools = counts.sum(axis=-1) > 0
    return labeled


def macro_f1_both_classes(counts: Ints) -> Floats:
    """Return the mean F1 over AUs and both classes. Some papers call it macro F1; not comparable to `macro_f1`."""
    return _over_labeled(f1(counts) + f1(counts[..., ::-1]), counts) / 2


def acc_elem(counts: Ints) -> Floats:
    """Return the share of labeled entries that are right (…)."""
    tp, fp, fn, tn = (cell.sum(axis=-1) for cell in _cells(counts))
    return _ratio(tp + tn, tp + fp + fn + tn)


def calibration_error(labels: Labels, probabilities: Floats, bins: int = 10) -> Floats:
    """Return the expected calibration error (12,) of probabilities (N, 12), over bins of equal width.

    Guo et al.: On Calibration of Modern Neural Networks (2017). An AU without a label has error 0.
    """
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    known = labels != facs.UNKNOWN
    errors = np.where(known, probabilities - (labels == 1), 0)
    total = sum(np.abs((errors * (place == each)).sum(axis=0)) for each in range(bins))
    return _ratio(total, known.sum(axis=0))


def reliability(labels: Labels, probabilities: Floats, bins: int = 10) -> tuple[Floats, Floats]:
    """Return the mean probability and the share of positives (bins, 12), over bins of equal width; NaN where empty."""
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    predicted, observed = np.full((2, bins, labels.shape[1]), np.nan)
    for each in range(bins):
        within = (place == each) & (labels != facs.UNKNOWN)
        filled = np.flatnonzero(within.any(axis=0))
        count = within[:, filled].sum(axis=0)
        predicted[each, filled] = np.where(within, probabilities, 0)[:, filled].sum(axis=0) / count
        observed[each, filled] = (within & (labels == 1))[:, filled].sum(axis=0) / count
    return predicted, observed


def auc(labels: Labels, probabilities: Floats) -> Floats:
    """Return the area under the ROC curve (12,) of probabilities (N, 12).

    It is the probability that a row with the AU has a higher score than a row without it; a tie counts one half. It is
    NaN for an AU whose labels are all equal.
    """
    return _per_au(labels, probabilities, _auc)


def average_precision(labels: Labels, probabilities: Floats) -> Floats:
    """Return the average precision (12,) of probabilities (N, 12): the area under the steps of precision over recall.

    By chance it is the share of positives. It is NaN for an AU whose labels are all equal.
    """
    return _per_au(labels, probabilities, _average_precision)


def resting(labels: Labels) -> Bools:
    """Return (N,) whether a row is a resting face: every AU that is labeled in any of these rows is labeled absent.

    An unknown label might hide a movement, so the row counts only if no row has a label of that AU.
    """
    labeled = (labels != facs.UNKNOWN).any(axis=0)
    rest: Bools = (labels[:, labeled] == 0).all(axis=1) & labeled.any()
    return rest


def false_alarms(predicted: Bools) -> Floats:
    """Return the share (12,) of resting faces (N, 12) in which each AU is predicted; NaN without such a face."""
    return predicted.mean(axis=0) if len(predicted) else np.full(predicted.shape[1], np.nan)


def acc_exact(labels: Labels, predicted: Bools) -> float:
    """Return the share of rows in which every AU is right, of those that have all labels that any row has."""
    labeled = (labels != facs.UNKNOWN).any(axis=0)
    known = (labels != facs.UNKNOWN)[:, labeled].all(axis=1) & labeled.any()
    right = ((labels == 1) == predicted)[:, labeled].all(axis=1) & known
    return float(_ratio(right.sum(), known.sum()))


def abaw2_au(f1_score: float, accuracy: float) -> float:
    """Return the AU metric of ABAW 1 and 2."""
    return 0.5 * f1_score + 0.5 * accuracy


def abaw2_expression(f1_score: float, accuracy: float) -> float:
    """Return the expression metric of ABAW 1 and 2."""
    return 0.67 * f1_score + 0.33 * accuracy


def class_confusion(labels: npt.NDArray[np.integer], predicted: Ints, n_classes: int) -> Ints:
    """Return the counts (C, C) of [label, prediction] over rows (N,) with a label ≥ 0."""
    known = labels >= 0
    truth, guess = labels[known].astype(np.int64), predicted[known]
    return np.bincount(truth * n_classes + guess, minlength=n_classes**2).reshape(n_classes, n_classes)


def class_scores(table: Ints) -> tuple[float, float]:
    """Return the macro F1 over labeled classes and the accuracy from counts of `class_confusion`."""
    right, labeled = np.diag(table), table.sum(axis=1)
    per_class = _ratio(2 * right, table.sum(axis=0) + labeled)
    return float(_ratio(per_class.sum(), (labeled > 0).sum())), float(_ratio(right.sum(), table.sum()))


def majority(table: Ints) -> float:
    """Return the accuracy of always predicting the most frequent class."""
    return float(_ratio(table.sum(axis=1).max(), table.sum()))


def all_ones(counts: Ints) -> Ints:
    """Return the counts of the constant prediction 1 on the same labels; its `macro_f1` is the floor of every score."""
    tp, fp, fn, tn = _cells(counts)
    none = np.zeros_like(tp)
    return np.stack([tp + fn, fp + tn, none, none], axis=-1)


def floor_prior(counts: Ints, rates: Floats) -> float:
    """Return the expected macro F1 on the same labels of predicting 1 with probability `rates` (12,)."""
    tp, fp, fn, tn = _cells(counts)
    actual = _ratio(tp + fn, tp + fp + fn + tn)
    return float(_over_labeled(_ratio(2 * actual * rates, actual + rates), counts))


def resample(per_video: Ints, draws: int = 1000, seed: int = 0) -> Ints:
    """Return bootstrap counts (draws, 12, 4): per draw, V videos of per_video (V, 12, 4) drawn with replacement."""
    videos = len(per_video)
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(videos, np.full(videos, 1 / videos), size=draws)
    return np.tensordot(times_drawn, per_video, axes=1).astype(np.int64)


def interval95(values: Floats) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _per_au(labels: Labels, probabilities: Floats, score: Callable[[Bools, Floats], float]) -> Floats:
    found = np.full(labels.shape[1], np.nan)
    for au, (column, values) in enumerate(zip(labels.T, probabilities.T, strict=True)):
        known = column != facs.UNKNOWN
        positive = column[known] == 1
        if positive.any() and not positive.all():
            found[au] = score(positive, values[known])
    return found


def _auc(positive: Bools, values: Floats) -> float:
    # The mean rank of equal values counts their pairs as one half.
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[place]
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _average_precision(positive: Bools, values: Floats) -> float:
    # Equal values are reached by one threshold, so they are one step.
    _, place = np.unique(-values, return_inverse=True)
    hits, called = np.cumsum(np.bincount(place, positive)), np.cumsum(np.bincount(place))
    return float((np.diff(hits, prepend=0) * hits / called).sum() / hits[-1])


def _over_labeled(values: Floats, counts: Ints) -> Floats:
    """Return the mean (…) of values (…, 12) over the AUs with a label; 0 if there is none."""
    labeled = are_labeled(counts)
    return _ratio((values * labeled).sum(axis=-1), labeled.sum(axis=-1))


def _cells(counts: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    return counts[..., 0], counts[..., 1], counts[..., 2], counts[..., 3]


def _ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)
