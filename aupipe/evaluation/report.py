"""The content of `scores.json`: what is scored on a split, with the floor and intervals over videos beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aupipe import facs
from aupipe.arrays import Bools, Floats, Ints
from aupipe.evaluation import metrics
from aupipe.evaluation.decision import Decision

DRAWS = 1000


def report(stages: Mapping[str, Decision]) -> dict[str, Any]:
    """`scores` of the last stage, and beside them the macro F1 and the F1 of each AU at every stage."""
    *_, final = stages.values()
    return scores(final) | {
        "stages": {
            name: {"macro_f1": float(f1.mean()), "per_au": dict(zip(facs.AUS, f1.tolist(), strict=True))}
            for name, f1 in ((name, metrics.f1(_counts(stage))) for name, stage in stages.items())
        }
    }


def scores(decision: Decision, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Every score of a decision.

    `ci95` are bootstrap intervals over videos; `above_floor` is paired: model and floor on the same drawn videos.
    """
    names, per_video = video_counts(decision)
    labels = decision.predictions.labels
    counts = per_video.sum(axis=0)
    drawn = metrics.resample(per_video, draws, seed)
    f1, precision, recall = metrics.f1(counts), metrics.precision(counts), metrics.recall(counts)
    drawn_f1 = metrics.f1(drawn)
    floor = metrics.f1(metrics.all_ones(counts))
    apart = metrics.calibration_error(labels, decision.predictions.probabilities)
    elementwise, exact = float(metrics.acc_elem(counts)), metrics.acc_exact(labels, decision.decided)
    return {
        "macro_f1": float(f1.mean()),
        "floor": float(floor.mean()),
        "floor_prior": metrics.floor_prior(counts, _rates(counts)),
        "ci95": {
            "macro_f1": metrics.interval95(drawn_f1.mean(axis=-1)),
            "above_floor": metrics.interval95(drawn_f1.mean(axis=-1) - metrics.macro_f1(metrics.all_ones(drawn))),
        },
        "per_au": {
            au: {
                "f1": float(f1[i]),
                "ci95": metrics.interval95(drawn_f1[:, i]),
                "floor": float(floor[i]),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "threshold": None if decision.thresholds is None else float(decision.thresholds[i]),
                "positives": int(counts[i, 0] + counts[i, 2]),
                "calibration_error": float(apart[i]),
            }
            for i, au in enumerate(facs.AUS)
        },
        "macro_f1_both_classes": float(metrics.macro_f1_both_classes(counts)),
        "acc_elem": elementwise,
        "acc_exact": exact,
        # The authors count element-wise; the organizers' own accuracy can only be that of exact matches.
        "metric_abaw2": {
            "with_acc_elem": metrics.abaw2_au(float(f1.mean()), elementwise),
            "with_acc_exact": metrics.abaw2_au(float(f1.mean()), exact),
        },
        "expression": _expression(decision),
        "n_frames": int(decision.predictions.labeled().sum()),
        "n_videos": len(names),
    }


def _expression(decision: Decision) -> dict[str, float] | None:
    """Of the most probable class at each row with a label; None of a model that does not judge expressions."""
    found = decision.predictions
    if found.expressions is None or found.expression_labels is None:
        return None
    # A model of seven classes knows no "Other": such rows are unknown to it.
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
    """Macro F1 of a decision less that of another on the same rows, with the paired interval: both are scored on the
    same drawn videos.
    """
    names, mine = video_counts(decision)
    same, theirs = video_counts(other)
    assert names == same, "decisions on different videos"
    drawn = [metrics.macro_f1(metrics.resample(counts, draws, seed)) for counts in (mine, theirs)]
    found = [float(metrics.macro_f1(counts.sum(axis=0))) for counts in (mine, theirs)]
    return {
        "macro_f1": found[1],
        "difference": found[0] - found[1],
        "ci95": metrics.interval95(drawn[0] - drawn[1]),
    }


def video_counts(decision: Decision, keep: Bools | None = None) -> tuple[list[str], Ints]:
    """The videos with a labeled row (of those that keep (N,) names), and the counts (V, 12, 4) of each."""
    known = decision.predictions.labeled()
    known = known if keep is None else known & keep
    rows = decision.predictions.where(known)
    names, codes = rows.video_codes()
    return names, metrics.confusion_by(codes, len(names), rows.labels, decision.decided[known])


def _counts(decision: Decision) -> Ints:
    return metrics.confusion(decision.predictions.labels, decision.decided)


def _rates(counts: Ints) -> Floats:
    return np.divide(counts[:, 0] + counts[:, 2], np.maximum(counts.sum(axis=-1), 1))
