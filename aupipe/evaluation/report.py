"""Content of `scores.json`: the scores on a split, with the floor and bootstrap intervals over videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aupipe import facs
from aupipe.arrays import Bools, Floats, Ints
from aupipe.evaluation import metrics
from aupipe.evaluation.decision import STAGES, Decision

DRAWS = 1000


def report(stages: Mapping[str, Decision]) -> dict[str, Any]:
    """Return the `scores` of the last stage, and the metrics of the papers at every stage.

    `compared_with_published` names the stage that published figures are compared with. They are at 0.5 without
    smoothing, except the 0.47 of Wang et al., which is with thresholds.
    """
    *_, last = stages
    compared = STAGES[0] if STAGES[0] in stages else last
    points = {name: _points(stage) for name, stage in stages.items()}
    return scores(stages[last]) | {"stages": points, "compared_with_published": compared}


def _points(decision: Decision) -> dict[str, Any]:
    """Return the metrics of the papers, without intervals."""
    counts = _counts(decision)
    macro_f1, elementwise = float(metrics.macro_f1(counts)), float(metrics.acc_elem(counts))
    f1 = np.where(metrics.are_labeled(counts), metrics.f1(counts), np.nan)
    exact = metrics.acc_exact(decision.predictions.labels, decision.decided)
    return {
        "macro_f1": macro_f1,
        "per_au": dict(zip(facs.AUS, map(_number, f1), strict=True)),
        "acc_elem": elementwise,
        "acc_exact": exact,
        "metric_abaw2": _metric_abaw2(macro_f1, elementwise, exact),
        "expression": _expression(decision),
    }


def _metric_abaw2(macro_f1: float, elementwise: float, exact: float) -> dict[str, float]:
    """Return the AU metric of ABAW2 by both accuracies.

    The papers count element-wise, while the organizers' definition can only mean exact matches.
    """
    return {
        "with_acc_elem": metrics.abaw2_au(macro_f1, elementwise),
        "with_acc_exact": metrics.abaw2_au(macro_f1, exact),
    }


def scores(decision: Decision, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Return all scores of a decision.

    All scores of an AU are None if no row has a label of it, areas under curves if its labels are all equal, those and
    the calibration if there are no probabilities, and false alarms without a resting face. Means leave out such AUs.
    `ci95` are bootstrap intervals over videos. `above_floor` is paired: model and floor use the same drawn videos.
    """
    names, per_video = video_counts(decision)
    labels, probabilities = decision.predictions.labels, decision.predictions.probabilities
    counts = per_video.sum(axis=0)
    drawn = metrics.resample(per_video, draws, seed)
    labeled = metrics.are_labeled(counts)
    drawn_f1, drawn_macro = metrics.f1(drawn), metrics.macro_f1(drawn)
    macro_f1 = float(metrics.macro_f1(counts))
    f1, floor, precision, recall, calibration_error = (
        np.where(labeled, values, np.nan)
        for values in (
            metrics.f1(counts), metrics.f1(metrics.all_ones(counts)), metrics.precision(counts), metrics.recall(counts),
            metrics.calibration_error(labels, probabilities),
        )
    )  # fmt: skip
    auc, precision_mean = (score(labels, probabilities) for score in (metrics.auc, metrics.average_precision))
    if not decision.has_probabilities:
        auc = precision_mean = calibration_error = np.full(len(facs.AUS), np.nan)
    rest = metrics.resting(labels)
    alarms = np.where(labeled, metrics.false_alarms(decision.decided[rest]), np.nan)
    elementwise, exact = float(metrics.acc_elem(counts)), metrics.acc_exact(labels, decision.decided)
    return {
        "macro_f1": macro_f1,
        "floor": float(metrics.macro_f1(metrics.all_ones(counts))),
        "floor_prior": metrics.floor_prior(counts, _rates(counts)),
        "ci95": {
            "macro_f1": metrics.interval95(drawn_macro),
            "above_floor": metrics.interval95(drawn_macro - metrics.macro_f1(metrics.all_ones(drawn))),
        },
        "per_au": {
            au: {
                "f1": _number(f1[i]),
                "ci95": metrics.interval95(drawn_f1[:, i]) if labeled[i] else None,
                "floor": _number(floor[i]),
                "precision": _number(precision[i]),
                "recall": _number(recall[i]),
                "threshold": None if decision.thresholds is None else float(decision.thresholds[i]),
                "positives": int(counts[i, 0] + counts[i, 2]),
                "calibration_error": _number(calibration_error[i]),
                "auc": _number(auc[i]),
                "average_precision": _number(precision_mean[i]),
                "false_alarms_at_rest": _number(alarms[i]),
            }
            for i, au in enumerate(facs.AUS)
        },
        # Means over the AUs that have rows with and without them.
        "auc": _mean(auc),
        "average_precision": _mean(precision_mean),
        "n_resting_frames": int(rest.sum()),
        "macro_f1_both_classes": float(metrics.macro_f1_both_classes(counts)),
        "acc_elem": elementwise,
        "acc_exact": exact,
        "metric_abaw2": _metric_abaw2(macro_f1, elementwise, exact),
        "expression": _expression(decision),
        "n_frames": int(decision.predictions.labeled().sum()),
        "n_videos": len(names),
    }


def _number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN: None stands for a score that the labels do not allow."""
    return None if np.isnan(value) else float(value)


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _expression(decision: Decision) -> dict[str, float] | None:
    """Return scores of the most probable class over labeled rows; None if the model does not predict these classes."""
    found = decision.predictions
    if found.expressions is None or found.expression_labels is None:
        return None
    # A model of seven classes has no "Other", so such rows count as unlabeled.
    classes = found.expressions.shape[1]
    labels = np.where(found.expression_labels < classes, found.expression_labels, facs.UNKNOWN)
    table = metrics.class_confusion(labels, found.expressions.argmax(axis=1), classes)
    f1, accuracy = metrics.class_scores(table)
    return {
        "macro_f1": f1,
        "accuracy": accuracy,
        "metric_abaw2": metrics.abaw2_expression(f1, accuracy),
        "majority": metrics.majority(table),
        "n_frames": int(table.sum()),
    }


def against(decision: Decision, other: Decision, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Return the difference in macro F1 to another decision on the same rows, with its paired interval.

    Both are scored on the same drawn videos.
    """
    names, counts = video_counts(decision)
    other_names, other_counts = video_counts(other)
    assert names == other_names, "decisions on different videos"
    drawn = [metrics.macro_f1(metrics.resample(each, draws, seed)) for each in (counts, other_counts)]
    found = [float(metrics.macro_f1(each.sum(axis=0))) for each in (counts, other_counts)]
    return {
        "macro_f1": found[1],
        "difference": found[0] - found[1],
        "ci95": metrics.interval95(drawn[0] - drawn[1]),
    }


def video_counts(decision: Decision, keep: Bools | None = None) -> tuple[list[str], Ints]:
    """Return the videos with a labeled row among the rows `keep` (N,), and the counts (V, 12, 4) of each."""
    known = decision.predictions.labeled()
    known = known if keep is None else known & keep
    rows = decision.predictions.where(known)
    names, codes = rows.video_codes()
    return names, metrics.confusion_by(codes, len(names), rows.labels, decision.decided[known])


def _counts(decision: Decision) -> Ints:
    return metrics.confusion(decision.predictions.labels, decision.decided)


def _rates(counts: Ints) -> Floats:
    return np.divide(counts[:, 0] + counts[:, 2], np.maximum(counts.sum(axis=-1), 1))
