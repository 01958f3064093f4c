"""The trials of a search on disk: OUT/trials/NAME is a run as train.py leaves it, and `trial.json` in it says how far
the trial came. Done-ness is read from there, so a search that was killed goes on with what is not done.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from aupipe.config import Section
from aupipe.storage import Storage
from aupipe.training import run_dir
from aupipe.training.recipe import Recipe
from aupipe.training.search_space import Dimension
from aupipe.tuning.search import Settings, name_of

FOLDER, RECORD = "trials", "trial.json"
Status = Literal["running", "finished", "stopped", "failed"]


class Trial(Section):
    """One set of settings, and what became of it."""

    settings: dict[str, Any]
    status: Status = "running"  # stopped: early, because others were better
    reason: str = ""  # of what failed
    began_s: float  # since 1970
    ended_s: float | None = None
    scores: tuple[float, ...] = ()  # of the epochs of the last stage, by which the search goes
    train_s: float = 0.0

    @property
    def name(self) -> str:
        return name_of(self.settings)

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{self.name}"

    @property
    def score(self) -> float:
        """Of the best epoch; −∞ before the first."""
        return max(self.scores, default=float("-inf"))


def begin(out: Storage, settings: Settings) -> Trial:
    """The trial of these settings; from now on there is a record of it."""
    trial = Trial(settings=settings, began_s=time.time())
    if out.exists(f"{trial.folder}/{RECORD}"):
        return _read(out, trial.folder)
    _write(out, trial)
    return trial


def end(out: Storage, settings: Settings, status: Status, reason: str = "") -> Trial:
    """Write down how a trial ended; one that has ended already stays as it is."""
    trial = begin(out, settings)
    if trial.status == "running":
        lines = epochs(out, trial)
        trial = trial.model_copy(
            update={
                "status": status,
                "reason": reason,
                "ended_s": time.time(),
                "scores": tuple(line["score"] for line in lines),
                "train_s": sum(line["train_s"] + line["validation_s"] for line in lines),
            }
        )
        _write(out, trial)
    return trial


def epochs(out: Storage, trial: Trial) -> list[dict[str, Any]]:
    """The figures of the epochs of the last stage that the trial has begun."""
    name = f"{trial.folder}/{run_dir.METRICS}"
    lines = [json.loads(line) for line in out.read(name).splitlines()] if out.exists(name) else []
    return [line for line in lines if line["stage"] == lines[-1]["stage"]]


def read(out: Storage) -> list[Trial]:
    """All trials, in the order in which they began."""
    if not out.exists(FOLDER):
        return []
    folders = [f"{FOLDER}/{name}" for name in out.children(FOLDER)[0]]
    found = [_read(out, folder) for folder in folders if out.exists(f"{folder}/{RECORD}")]
    return sorted(found, key=lambda trial: (trial.began_s, trial.name))


def best(found: Sequence[Trial]) -> Trial:
    """The one with the best epoch; of equals the earliest."""
    return max(found, key=lambda trial: trial.score)


def to_parquet(recipe: Recipe, space: Mapping[str, Dimension], found: Sequence[Trial]) -> bytes:
    """One row a trial, one column a setting."""
    columns: dict[str, list[Any]] = {
        "trial": [trial.name for trial in found],
        "status": [trial.status for trial in found],
        "reason": [trial.reason for trial in found],
        "score": [trial.score if trial.scores else None for trial in found],
        "epochs": [len(trial.scores) for trial in found],
        "train_s": [trial.train_s for trial in found],
        "began": [_moment(trial.began_s) for trial in found],
        "ended": [_moment(trial.ended_s) for trial in found],
        "run": [trial.folder for trial in found],
    }
    for key in space:
        columns[key] = [_cell(trial.settings.get(key, recipe.value_of(key))) for trial in found]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def _cell(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else json.dumps(value)


def _moment(unix_s: float | None) -> datetime | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, timezone.utc)


def _read(out: Storage, folder: str) -> Trial:
    return Trial.model_validate_json(out.read(f"{folder}/{RECORD}"))


def _write(out: Storage, trial: Trial) -> None:
    out.write(f"{trial.folder}/{RECORD}", trial.model_dump_json(indent=1).encode())
