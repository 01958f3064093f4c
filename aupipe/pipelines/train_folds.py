"""`train.py --folds`: the official split and the four folds, each as a run of its own, and a table of all runs.

RUN/FOLD/          a run of `train`; FOLD is official, fold-0 … fold-3, followed by the settings of `fold.K.…`
RUN/folds.json     all finished runs, also those of earlier commands with other `fold.K.…`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aupipe import output_folders
from aupipe.data import splits
from aupipe.errors import ConfigError
from aupipe.facestore.folds import FOLDS
from aupipe.pipelines import train
from aupipe.pipelines.session import session
from aupipe.pipelines.train import TrainPlan
from aupipe.pipelines.train_stage import TrainJob
from aupipe.storage import Storage
from aupipe.training import run_dir

TABLE = "folds.json"


def jobs(job: TrainJob) -> dict[str, TrainJob]:
    """Return name of the folder → run.

    Raises:
        ConfigError: there are settings of an unknown fold.
    """
    known = (splits.OFFICIAL, *map(str, range(FOLDS)))
    if other := sorted(job.recipe.fold.keys() - set(known)):
        raise ConfigError(f"fold.{other[0]}: unknown (fold.{', fold.'.join(known)})")
    found = {}
    for fold in known:
        split = fold if fold == splits.OFFICIAL else f"fold:{fold}"
        changes = job.recipe.fold.get(fold, {})
        name = ",".join([split.replace(":", "-"), *(f"{key}={value}" for key, value in sorted(changes.items()))])
        out = Storage(job.out).path(name)
        found[name] = replace(job, out=out, split=split, recipe=job.recipe.for_fold(fold))
    return found


def check(job: TrainJob) -> list[TrainPlan]:
    """Check what all runs need, and return their plans. Starts nothing.

    Raises:
        ConfigError: as `jobs` and `train.check`.
    """
    output_folders.check(Storage(job.out), "a training run")
    return [train.check(one) for one in jobs(job).values()]


def text(plans: Sequence[TrainPlan]) -> str:
    """Return the plans for a terminal."""
    return "\n".join(train.text(plan) for plan in plans)


def train_folds(job: TrainJob) -> dict[str, Any]:
    """Train the runs that are not finished. Return run → macro F1 on its held-out part, floor, checkpoint."""
    out = Storage(job.out)
    output_folders.check(out, "a training run")
    with session(job.recipe.resources, log_to_driver=False):
        for one in jobs(job).values():
            train.train(one)
    table: dict[str, Any] = {}
    for name in sorted(out.children()[0]):
        if not out.exists(f"{name}/{run_dir.SUMMARY}"):
            continue
        summary = json.loads(out.read(f"{name}/{run_dir.SUMMARY}"))
        figures = {
            key: summary[key]
            for key in (
                "macro_f1",
                "by_step",
                "compared_with_published",
                "recipe",
                "aff_wild2",
                "split",
                "floor",
                "ci95",
            )
        }
        table[name] = figures | {"checkpoint": out.path(f"{name}/{run_dir.BEST}")}
    out.write(TABLE, json.dumps(table, indent=1).encode())
    return table


def table_text(table: dict[str, Any]) -> str:
    """Return the table for a terminal: one row per fold, one column per variant of its settings."""
    found: dict[str, dict[str, float]] = {}
    for name, figures in table.items():
        fold, _, change = name.partition(",")
        found.setdefault(fold, {})[change or "recipe"] = figures["macro_f1"]
    columns = sorted({change for row in found.values() for change in row})
    lines = ["fold      " + "".join(f"{column:>20}" for column in columns)]
    for fold, row in sorted(found.items(), key=lambda item: (item[0] != splits.OFFICIAL, item[0])):
        cells = (f"{row[column]:20.3f}" if column in row else " " * 20 for column in columns)
        lines.append(f"{fold:10}" + "".join(cells))
    return "\n".join(lines)
