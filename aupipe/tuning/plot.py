"""Plot of a search: the score of each trial per epoch, and the best score over time."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aupipe.evaluation.plot import caption
from aupipe.tuning import search, trials
from aupipe.tuning.trials import Trial

COLORS = {"finished": "#33506b", "stopped": "#bbbbbb", "failed": "#cc3344"}


def picture(found: Sequence[Trial], title: str) -> bytes:
    """Return a PNG of trials, given in the order in which they began; at least one must be comparable."""
    figure = Figure(figsize=(12, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    best = trials.best(found)
    for trial in found:
        place = range(1, len(trial.scores) + 1)
        color = "#e07b39" if trial is best else COLORS.get(trial.status)
        dashed = trial.name == search.DEFAULT
        label = "best" if trial is best else "default" if dashed else None
        by_epoch.plot(place, trial.scores, "--" if dashed else "-", color=color, marker=".", label=label)
    by_epoch.locator_params(axis="x", integer=True)
    by_epoch.set(xlabel="epoch", ylabel="score on people held out")
    figure.suptitle(caption(title, 110))
    ended = [(trial.ended_s, trial) for trial in found if trial.ended_s is not None and trial.scores]
    ended.sort(key=lambda each: each[0])
    start = min(trial.began_s for trial in found)
    minutes = [(ended_s - start) / 60 for ended_s, _ in ended]
    by_time.scatter(minutes, [t.score for _, t in ended], c=[COLORS[t.status] for _, t in ended], zorder=2)
    rated = trials.comparable([trial for _, trial in ended])
    so_far = list(itertools.accumulate((trial.score for trial in rated), max))
    minutes = [minute for minute, (_, trial) in zip(minutes, ended, strict=True) if trial in rated]
    by_time.step(minutes, so_far, where="post", color="#e07b39", label="best so far")
    by_time.set(xlabel="minutes since the search began")
    for axes in (by_epoch, by_time):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend()
    handles = [
        by_time.scatter([], [], color=color, label=status)
        for status, color in COLORS.items()
        if any(trial.status == status for trial in found)
    ]
    figure.legend(handles=handles, loc="outside right upper")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
