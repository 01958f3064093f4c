"""Tables of runs beside the figures that the papers print, from the JSON files of runs, folds and evaluations.

A figure of a run is comparable with the published ones only if it was measured on Aff-Wild2's official validation set;
its folds are not those of the papers, which do not list them. Rows on other data are marked.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aupipe import facs
from aupipe.errors import ConfigError, one_line
from aupipe.evaluation.plot import PUBLISHED_PER_AU, caption
from aupipe.storage import Storage

PUBLISHED = "published"
ELSEWHERE = "not measured on Aff-Wild2"
COLUMNS = ("macro F1", *facs.AUS, "accuracy", "ABAW2 metric", "EXPR F1", "EXPR accuracy", "EXPR metric")


@dataclass(frozen=True)
class Row:
    """One system: its figures by column of `COLUMNS`, the others are unknown."""

    recipe: str
    name: str
    data: str
    figures: Mapping[str, float]
    ci95: tuple[float, float] | None = None
    step: str = ""  # raw_at_0.5 …


def _per_au(text: str) -> dict[str, float]:
    """Return the figures of a row of Yu et al.'s table 1, which prints percentages."""
    values = [float(value) / 100 for value in text.split()]
    return {"macro F1": sum(values) / len(values), **dict(zip(facs.AUS, values, strict=True))}


def _row(recipe: str, name: str, macro_f1: float, **figures: float) -> Row:
    return Row(recipe, name, PUBLISHED, {"macro F1": macro_f1, **figures})


# As printed in the papers, on Aff-Wild2's validation set of their edition.
PUBLISHED_ROWS: tuple[Row, ...] = (
    _row("prompt_tuning", "Tu et al., without prompts", 0.497),
    _row("prompt_tuning", "Tu et al., with prompts (table 1)", 0.511),
    _row("prompt_tuning", "Tu et al., with prompts (table 2)", 0.512),
    _row("prompt_tuning_vit", "Tu et al., ViT-B without prompts", 0.224),
    _row("prompt_tuning_vit", "Tu et al., ViT-B with prompts", 0.248),
    _row("expression_transfer", "Wang et al., at 0.5", 0.460),
    _row("expression_transfer", "Wang et al., thresholds fitted on validation", 0.47),
    Row("multimodal", "Jin et al., AUs", PUBLISHED, {"macro F1": 0.545, "accuracy": 0.879, "ABAW2 metric": 0.712}),
    Row("multimodal", "Jin et al., expressions", PUBLISHED,
        {"EXPR F1": 0.402, "EXPR accuracy": 0.630, "EXPR metric": 0.477}),
    Row("region_relation", "Yu et al., official split", PUBLISHED,
        {"macro F1": 0.5106, **PUBLISHED_PER_AU}),
    *(Row("region_relation", f"Yu et al., fold {number}", PUBLISHED, _per_au(values)) for number, values in enumerate((
        "57.95 53.48 47.45 60.67 68.42 72.07 70.28 39.94 26.66 13.37 80.63 45.28",
        "48.50 31.26 62.38 65.15 71.97 70.71 75.39 38.85 22.72 22.50 82.34 30.90",
        "48.84 26.50 63.52 60.63 69.31 69.02 70.03 32.04 21.34 19.41 81.24 26.76",
        "59.04 41.75 49.89 58.23 69.90 69.71 66.63 17.43 25.04 9.69 81.70 40.74",
    ), 1)),
    *(_row("region_relation", f"Yu et al., ablation: {name}", macro_f1) for name, macro_f1 in (
        ("IResNet-100", 0.4682), ("+ circle loss", 0.4778), ("+ Glint360K", 0.4906), ("+ ARL", 0.4956),
        ("+ LRP", 0.5019), ("+ fusion", 0.5106),
    )),
)  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """The rows of runs, and the published rows of their recipes."""

    rows: Sequence[Row] = field(default_factory=list)

    def columns(self, recipe: str) -> list[str]:
        """Return the columns in which a row of the recipe has a figure."""
        return [name for name in COLUMNS if any(name in row.figures for row in self.rows if row.recipe == recipe)]

    def recipes(self) -> list[str]:
        return list(dict.fromkeys(row.recipe for row in self.rows))

    def markdown(self) -> str:
        """Return a table per recipe."""
        parts = []
        for recipe in self.recipes():
            columns = self.columns(recipe)
            lines = [f"## `{recipe}`", "", "| system | data | step | 95 % |" + "".join(f" {c} |" for c in columns)]
            lines.append("|---|---|---|---|" + "---|" * len(columns))
            for row in (row for row in self.rows if row.recipe == recipe):
                interval = "" if row.ci95 is None else f"{row.ci95[0]:.3f}–{row.ci95[1]:.3f}"
                cells = (f"{row.figures[c]:.3f}" if c in row.figures else "" for c in columns)
                name = row.name.replace("|", r"\|")  # a run's folder may contain it, and it would end the cell
                lines.append(f"| {name} | {row.data} | {row.step} | {interval} |" + "".join(f" {c} |" for c in cells))
            parts.append("\n".join(lines))
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """Return all rows in one table."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["recipe", "system", "data", "step", "ci95_low", "ci95_high", *COLUMNS])
        for row in self.rows:
            cells = [row.figures.get(column, "") for column in COLUMNS]
            writer.writerow([row.recipe, row.name, row.data, row.step, *(row.ci95 or ("", "")), *cells])
        return text.getvalue()

    def picture(self) -> bytes:
        """Return a PNG of the macro F1. Published figures are drawn only beside runs on the same data."""
        measured = {row.recipe for row in self.rows if row.data not in (PUBLISHED, ELSEWHERE)}
        rows = [r for r in self.rows if "macro F1" in r.figures and (r.data != PUBLISHED or r.recipe in measured)]
        names = [f"{row.name} ({row.data})" for row in rows]
        width = 5 + 0.08 * max(50, *map(len, names))  # inches
        figure = Figure(figsize=(width, 1.2 + 0.32 * len(rows)), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for place, row in enumerate(rows):
            value = row.figures["macro F1"]
            low, high = row.ci95 or (value, value)
            error = [[max(value - low, 0)], [max(high - value, 0)]]
            color = "#cc3344" if row.data == PUBLISHED else "#33506b"
            axes.errorbar(value, place, xerr=error, fmt="D" if row.data == PUBLISHED else "o", color=color, capsize=3)
        axes.set(yticks=range(len(rows)), yticklabels=[caption(name) for name in names], xlabel="macro F1")
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return buffer.getvalue()


def collect(folders: Sequence[str]) -> Tables:
    """Return the rows of these folders, each followed by the published rows of its recipe.

    Args:
        folders: of `train.py` (`summary.json`), `train.py --folds` (`folds.json`) or `evaluate.py` (`scores.json`).

    Raises:
        ConfigError: a folder has none of the files, or its run was scored by an earlier version.
    """
    own: dict[str, list[Row]] = {}
    for folder in {Storage(folder).root: folder for folder in folders}.values():
        for row in _rows(folder):
            own.setdefault(row.recipe, []).append(row)
    rows: list[Row] = []
    for recipe, found in own.items():
        rows += [*found, *(row for row in PUBLISHED_ROWS if row.recipe == recipe)]
    return Tables(rows)


def _rows(folder: str) -> list[Row]:
    storage = Storage(folder)
    name = next((name for name in ("folds.json", "summary.json", "scores.json") if storage.exists(name)), None)
    if name is None:
        raise ConfigError(f"{folder}: no run (folds.json, summary.json or scores.json); fix: name the folder of a run")
    try:
        result = json.loads(storage.read(name))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{storage.path(name)} is not JSON ({error}); fix: score it again") from None
    folds = name == "folds.json" and isinstance(result, dict)
    runs = {f"{folder}/{run}": value for run, value in result.items()} if folds else {folder: result}
    for run, value in runs.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{run}: {name} contains no scores; fix: score it again")
        if "trials" in value:
            raise ConfigError(f"{run} is a search; fix: name a run, as that of train.py --recipe {run}/best.yaml")
        if "compared_with_published" not in value:
            raise ConfigError(f"{run}: no scores of AUs in {name}, or of an earlier version; fix: score it again")
    try:
        return [_of_run(run, value) for run, value in runs.items()]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{storage.path(name)} has other entries ({one_line(error)}); fix: score it again") from None


def _of_run(name: str, result: Mapping[str, Any]) -> Row:
    """Return the row of a run at the step that is compared with published figures."""
    step = result["compared_with_published"]
    stages = result["by_step"] if "by_step" in result else result["stages"]
    points = stages[step]
    figures = {"macro F1": points["macro_f1"], "accuracy": points["acc_elem"]}
    figures |= {au: f1 for au, f1 in points["per_au"].items() if f1 is not None}
    figures["ABAW2 metric"] = points["metric_abaw2"]["with_acc_elem"]
    if (expression := points["expression"]) is not None:
        figures |= {"EXPR F1": expression["macro_f1"], "EXPR accuracy": expression["accuracy"]}
        figures["EXPR metric"] = expression["metric_abaw2"]
    # The interval is that of the last step, so it is given only where both are the same.
    same = points["macro_f1"] == result["macro_f1"]
    low, high = result["ci95"]["macro_f1"]
    data = f"Aff-Wild2 {result['split']}" if result["aff_wild2"] else ELSEWHERE
    return Row(result.get("recipe") or "predictions", name, data, figures, (low, high) if same else None, step)
