"""Plots of scores: F1 of every AU with its interval; F1 by threshold with the calibration; figures of each epoch."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aupipe import facs
from aupipe.arrays import Floats
from aupipe.evaluation import metrics
from aupipe.evaluation.calibration import f1_curves
from aupipe.evaluation.predictions import Predictions

# F1 on the Aff-Wild2 validation set as printed in the papers, single best system each.
PUBLISHED_PER_AU = {  # Yu et al., ABAW5 2023, official split
    "AU01": 0.5641, "AU02": 0.5094, "AU04": 0.5446, "AU06": 0.6003, "AU07": 0.7100, "AU10": 0.7161,
    "AU12": 0.7030, "AU15": 0.3041, "AU23": 0.1419, "AU24": 0.1526, "AU25": 0.8056, "AU26": 0.3752,
}  # fmt: skip
PUBLISHED_MACRO = {
    "Jin et al. 2021 (ABAW2)": 0.545,
    "Tu et al. (prompts)": 0.512,
    "Yu et al. 2023": 0.5106,
    "Wang et al. 2022": 0.47,
    "organizers' VGG16": 0.39,
}


def caption(text: str, longest: int | None = None) -> str:
    """Return a text with names or paths for a figure, as it is: matplotlib takes a text between two $ for a formula.

    Args:
        longest: number of characters of a line, in the middle of which the others become "…"; None: any.
    """
    lines = text.split("\n")
    if longest is not None:
        half = longest // 2
        lines = [line if len(line) <= longest else f"{line[: half - 1]}…{line[-half:]}" for line in lines]
    return "\n".join(lines).replace("$", r"\$")


def picture(result: dict[str, Any], title: str, *, published: bool) -> bytes:
    """Return a PNG of `result`, the content of a scores.json.

    Args:
        published: draw the published figures, which are only comparable with scores on the same data.
    """
    figure = Figure(figsize=(12, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [*facs.AUS, "macro"]
    own = [
        *result["per_au"].values(),
        {"f1": result["macro_f1"], "floor": result["floor"], "ci95": result["ci95"]["macro_f1"]},
    ]
    f1, floors = ([_or_nan(score[name]) for score in own] for name in ("f1", "floor"))
    low, high = ([_or_nan(score["ci95"] and score["ci95"][end]) for score in own] for end in (0, 1))
    # The score itself can be outside its interval, but an error bar must not be negative.
    below, above = np.maximum(np.subtract(f1, low), 0), np.maximum(np.subtract(high, f1), 0)
    places = list(range(len(names)))
    bars = axes.bar(places, f1, 0.6, yerr=[below, above], color="#a6c4de", ecolor="#33506b", capsize=3)
    floor = axes.hlines(
        floors, [x - 0.38 for x in places], [x + 0.38 for x in places], colors="#222222", linestyles=":"
    )
    axes.axvline(len(names) - 1.5, color="#bbbbbb", linewidth=0.8)
    axes.set(xticks=places, xticklabels=names, ylim=(0, 1), ylabel="F1 of the positive class")
    axes.set_title(caption(title, 84))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        [bars.patches[0], floor], ["this run, 95 % over videos", "floor: all AUs, always"], loc="outside right upper"
    )
    if published:
        stage = result["stages"][result["compared_with_published"]]
        compared_f1 = [*map(_or_nan, stage["per_au"].values()), stage["macro_f1"]]
        compared = axes.plot(places, compared_f1, "x", color="#33506b", markersize=6)
        _draw_published(figure, axes, places)
        figure.legend(compared, ["this run, to compare with published"], loc="outside right center")
    return _png(figure)


def _or_nan(value: float | None) -> float:
    """Return a score, or NaN, which is not drawn, for that of an AU without a label."""
    return math.nan if value is None else value


def curves(predictions: Predictions, thresholds: Floats | None, title: str) -> bytes:
    """Return a PNG with one panel per AU: F1 by threshold, and the share of positives by predicted probability.

    Args:
        thresholds: those in use (12,), drawn as lines; None: there are none, because several models vote.
    """
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = np.linspace(0.01, 0.99, 99)
    f1 = f1_curves(predictions.labels, predictions.probabilities, grid)
    predicted, observed = metrics.reliability(predictions.labels, predictions.probabilities)
    panels = figure.subplots(3, 4, sharex=True, sharey=True).reshape(-1)
    for number, (axes, au) in enumerate(zip(panels, facs.AUS, strict=True)):
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, label="calibrated")
        axes.plot(
            predicted[:, number], observed[:, number], "o-", color="#cc3344", markersize=4, label="share of positives"
        )
        axes.plot(grid, f1[:, number], color="#33506b", label="F1 by threshold")
        if thresholds is not None:
            axes.axvline(thresholds[number], color="#222222", linestyle=":", label="threshold in use")
        axes.set(xlim=(0, 1), ylim=(0, 1), title=f"{au} {facs.AU_NAMES[au]}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(caption(title, 110))
    for axes in panels[-4:]:
        axes.set_xlabel("probability or threshold")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return _png(figure)


def learning_curves(history: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Return a PNG with one column per stage: loss, and the validation scores that are shares, by epoch.

    Args:
        history: lines of metrics.jsonl, at least one.
    """
    stages = list(dict.fromkeys(str(line["stage"]) for line in history))
    figure = Figure(figsize=(max(6, 4.5 * len(stages)), 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(stages), squeeze=False)
    for (loss, shares), stage in zip(panels.T, stages, strict=True):
        lines = [line for line in history if line["stage"] == stage]
        epochs = [int(line["epoch"]) + 1 for line in lines]
        loss.plot(epochs, [line["loss"] for line in lines], "o-", color="#33506b", markersize=3)
        loss.set(title=stage, ylabel="loss")
        for name, style in _SHARES.items():
            if all(name in line for line in lines):
                shares.plot(epochs, [line[name] for line in lines], style, markersize=3, label=name)
        for axes in (loss, shares):
            axes.xaxis.get_major_locator().set_params(integer=True)
        shares.set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
        if shares.get_legend_handles_labels()[0]:
            shares.legend(loc="lower right", fontsize="small")
    figure.suptitle(caption(title, round(9 * figure.get_figwidth())))
    return _png(figure)


# Scores of an epoch in metrics.jsonl; a floor is dotted.
_SHARES = {"macro_f1": "o-C0", "floor": ":C0", "expr_accuracy": "s-C1", "expr_majority": ":C1"}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_published(figure: Figure, axes: Axes, places: list[int]) -> None:
    points = axes.plot(places[:-1], list(PUBLISHED_PER_AU.values()), "D", color="#cc3344", markersize=5)
    for number, (marker, value) in enumerate(zip("osD^v", PUBLISHED_MACRO.values(), strict=True)):
        points += axes.plot([places[-1] + 0.12 * (number - 2)], [value], marker, color="#cc3344", markersize=5)
    labels = ["Yu et al. 2023, each AU", *(f"{name}, macro" for name in PUBLISHED_MACRO)]
    figure.legend(points, labels, loc="outside right lower", title="published, Aff-Wild2 validation")
