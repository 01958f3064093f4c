"""The content of `scores.json`: what a model scores on a split, with the floor and intervals over videos beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from aupipe import facs
from aupipe.learning import metrics
from aupipe.learning.metrics import Floats
from aupipe.learning.predictions import Predictions


def macro_f1(predictions: Predictions, thresholds: Floats) -> float:
    counts = metrics.confusion(predictions.labels, predictions.probabilities >= thresholds)
    return float(metrics.macro_f1(counts))


def scores(predictions: Predictions, thresholds: Floats, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Every score of `predictions` (already smoothed) at `thresholds` (12,).

    `ci95` are bootstrap intervals over videos; `above_floor` is paired: model and floor on the same drawn videos.
    """
    decided = predictions.probabilities >= thresholds
    names, codes = predictions.video_codes()
    per_video = metrics.confusion_by(codes, len(names), predictions.labels, decided)
    counts = per_video.sum(axis=0)
    drawn = metrics.resample(per_video, draws, seed)
    f1, precision, recall = metrics.f1(counts), metrics.precision(counts), metrics.recall(counts)
    drawn_f1 = metrics.f1(drawn)
    floor = metrics.f1(metrics.all_ones(counts))
    return {
        "macro_f1": float(f1.mean()),
        "floor": float(floor.mean()),
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
                "threshold": float(thresholds[i]),
                "positives": int(counts[i, 0] + counts[i, 2]),
            }
            for i, au in enumerate(facs.AUS)
        },
        "macro_f1_both_classes": float(metrics.macro_f1_both_classes(counts)),
        "acc_elem": float(metrics.acc_elem(counts)),
        "acc_exact": metrics.acc_exact(predictions.labels, decided),
        "n_frames": int((predictions.labels != facs.UNKNOWN).any(axis=1).sum()),
        "n_videos": len(names),
    }


def table(raw: Predictions, radius: int, thresholds: Floats) -> tuple[dict[str, Any], str]:
    """`scores` with thresholds and smoothing, and the same beside the plainer figures as lines of text."""
    half = np.full(len(facs.AUS), 0.5)
    smooth = raw.smoothed(radius)
    stages = {
        "raw_at_0.5": scores(raw, half),
        "with_thresholds": scores(raw, thresholds),
        "with_thresholds_and_smoothing": scores(smooth, thresholds),
    }
    final = stages["with_thresholds_and_smoothing"]
    final["floor_prior"] = _floor_prior(raw)
    final["stages"] = {name: values["macro_f1"] for name, values in stages.items()}
    columns = ("floor", "raw 0.5", "thresholds", f"+ smoothing ±{radius}")
    lines = [f"{'F1':<10}" + "".join(f"{c:>16}" for c in columns) + f"{'95 %':>18}{'threshold':>11}{'positives':>11}"]
    for i, au in enumerate(facs.AUS):
        row = [final["per_au"][au]["floor"], *(values["per_au"][au]["f1"] for values in stages.values())]
        low, high = final["per_au"][au]["ci95"]
        lines.append(
            f"{au:<10}" + "".join(f"{value:16.3f}" for value in row) + f"{f'{low:.3f} … {high:.3f}':>18}"
            f"{thresholds[i]:11.3f}{final['per_au'][au]['positives']:11d}"
        )
    low, high = final["ci95"]["macro_f1"]
    row = [final["floor"], *(values["macro_f1"] for values in stages.values())]
    lines.append(f"{'macro':<10}" + "".join(f"{value:16.3f}" for value in row) + f"{f'{low:.3f} … {high:.3f}':>18}")
    low, high = final["ci95"]["above_floor"]
    lines.append(
        f"macro F1 above the floor (predict all ones): {final['macro_f1'] - final['floor']:+.3f}, "
        f"95 % {low:+.3f} … {high:+.3f} (paired bootstrap over {final['n_videos']} videos); {final['n_frames']} frames"
    )
    return final, "\n".join(lines)


def _floor_prior(predictions: Predictions) -> float:
    counts = metrics.confusion(predictions.labels, predictions.labels == 1)
    rates = np.divide(counts[:, 0], np.maximum(counts.sum(axis=-1), 1))
    return metrics.floor_prior(counts, rates)
