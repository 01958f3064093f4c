"""Plot of a `scores.json`: the F1 of every AU with its interval, the floor, and published figures."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aupipe import facs

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


def picture(result: dict[str, Any], title: str, *, published: bool) -> bytes:
    """Return a PNG of `result`, the content of a scores.json.

    Args:
        published: draw the published figures, which are only comparable with scores on the same data.
    """
    figure = Figure(figsize=(12, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [*facs.AUS, "macro"]
    own = [*result["per_au"].values(), {"f1": result["macro_f1"], "ci95": result["ci95"]["macro_f1"]}]
    f1 = [score["f1"] for score in own]
    # The score itself can be outside its interval, but an error bar must not be negative.
    below = [max(score["f1"] - score["ci95"][0], 0) for score in own]
    above = [max(score["ci95"][1] - score["f1"], 0) for score in own]
    floors = [*(score["floor"] for score in result["per_au"].values()), result["floor"]]
    places = list(range(len(names)))
    bars = axes.bar(places, f1, 0.6, yerr=[below, above], color="#a6c4de", ecolor="#33506b", capsize=3)
    floor = axes.hlines(
        floors, [x - 0.38 for x in places], [x + 0.38 for x in places], colors="#222222", linestyles=":"
    )
    axes.axvline(len(names) - 1.5, color="#bbbbbb", linewidth=0.8)
    axes.set(xticks=places, xticklabels=names, ylim=(0, 1), ylabel="F1 of the positive class", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        [bars.patches[0], floor], ["this run, 95 % over videos", "floor: all AUs, always"], loc="outside right upper"
    )
    if published:
        _draw_published(figure, axes, places)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_published(figure: Figure, axes: Axes, places: list[int]) -> None:
    points = axes.plot(places[:-1], list(PUBLISHED_PER_AU.values()), "D", color="#cc3344", markersize=5)
    for number, (marker, value) in enumerate(zip("osD^v", PUBLISHED_MACRO.values(), strict=True)):
        points += axes.plot([places[-1] + 0.12 * (number - 2)], [value], marker, color="#cc3344", markersize=5)
    labels = ["Yu et al. 2023, each AU", *(f"{name}, macro" for name in PUBLISHED_MACRO)]
    figure.legend(points, labels, loc="outside right lower", title="published, Aff-Wild2 validation")
