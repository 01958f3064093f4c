"""Short forms of the measurements of speed, in one file and one picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aupipe.benchmarks import train
from harness import speed, throughput

Line = dict[str, Any]

MEASURES: dict[str, Callable[[], Line]] = {
    "front": lambda: speed.front(3, None),
    "startup": lambda: speed.startup(3),
    "annotate": lambda: throughput.measure(minutes=1.0, sizes=(1, 2), repeats=1),
    "train": lambda: train.measure(2),
}


def measure(out: str) -> Iterator[Line]:
    """Yield the line of each measurement, and write all to `bench.jsonl` and `bench.png` in a folder.

    A file of an earlier call is replaced.
    """
    folder, lines = Path(out), dict[str, Line]()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "bench.jsonl", "w") as file:
        for name, measured in MEASURES.items():
            lines[name] = {"bench": name, **measured()}
            file.write(json.dumps(lines[name]) + "\n")
            file.flush()
            yield lines[name]
    picture(lines).savefig(folder / "bench.png")


def picture(lines: dict[str, Line]) -> Figure:
    """Return a figure of the lines of `MEASURES`."""
    figure = Figure(figsize=(12, 3), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4)
    train_per_s = {f"{name} ×{workers}": lines["train"][f"{name}_{workers}"]["ratio"]
                   for name in ("light", "heavy") for workers in (1, 2)}  # fmt: skip
    _bars(panels[0], lines["front"]["ms"], "ms per frame, one core")
    _bars(panels[1], lines["annotate"]["frames_per_s"], "frames per second, two cores")
    _bars(panels[2], lines["startup"]["s"], "seconds in a new process")
    _bars(panels[3], train_per_s, "training rate / plain loop's")
    return figure


def _bars(axes: Axes, values: dict[str, float], title: str) -> None:
    names = list(values)[::-1]
    bars = axes.barh(names, [values[name] for name in names], color="#a6c4de")
    axes.bar_label(bars, fmt="%.4g", padding=2, fontsize=7)
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.25)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
