"""The trials of a search on disk. OUT/trials/NAME is a run of train.py, and its `trial.json` records the status.

A search that was stopped reads these records and resumes with the unfinished trials.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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
    """One set of settings and its outcome."""

    settings: dict[str, Any]
    status: Status = "running"  # stopped: early, because other trials were better
    reason: str = ""  # of a failed trial
    failures: int = 0  # errors of its driver so far; a lost node is none
    began_s: float  # since 1970
    ended_s: float | None = None
    # Of the epochs of the last stage; of a failed trial those of the last stage that it began.
    scores: tuple[float, ...] = ()
    train_s: float = 0.0

    @property
    def name(self) -> str:
        """Name derived from the settings."""
        return name_of(self.settings)

    @property
    def folder(self) -> str:
        """Folder of the run below OUT."""
        return f"{FOLDER}/{self.name}"

    @property
    def score(self) -> float:
        """Score of the best epoch; −∞ before the first."""
        return max(self.scores, default=float("-inf"))


def begin(out: Storage, settings: Settings) -> Trial:
    """Return the trial of these settings, and write its record if there is none."""
    trial = Trial(settings=settings, began_s=time.time())
    if out.exists(f"{trial.folder}/{RECORD}"):
        return _read(out, trial.folder)
    _write(out, trial)
    return trial


def end(out: Storage, settings: Settings, status: Status, reason: str = "") -> Trial:
    """Record how a trial ended; a trial that has already ended stays unchanged."""
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


def fail(out: Storage, trial: Trial, reason: str) -> None:
    """Record that a trial that was stopped early fails when it is completed."""
    _write(out, trial.model_copy(update={"status": "failed", "reason": reason}))


def count_failure(out: Storage, settings: Settings) -> int:
    """Record an error of the driver of a trial, and return the number of its errors."""
    trial = begin(out, settings)
    trial = trial.model_copy(update={"failures": trial.failures + 1})
    _write(out, trial)
    return trial.failures


def epochs(out: Storage, trial: Trial) -> list[dict[str, Any]]:
    """Return the metrics of each epoch of the last stage that the trial has begun."""
    name = f"{trial.folder}/{run_dir.METRICS}"
    lines = [json.loads(line) for line in out.read(name).splitlines()] if out.exists(name) else []
    return [line for line in lines if line["stage"] == lines[-1]["stage"]]


def read(out: Storage) -> list[Trial]:
    """Return all trials in the order in which they began."""
    if not out.exists(FOLDER):
        return []
    folders = [f"{FOLDER}/{name}" for name in out.children(FOLDER)[0]]
    found = [_read(out, folder) for folder in folders if out.exists(f"{folder}/{RECORD}")]
    return sorted(found, key=lambda trial: (trial.began_s, trial.name))


def comparable(found: Sequence[Trial]) -> list[Trial]:
    """Return the trials with a score, without those that failed, which have no checkpoint of the last stage."""
    return [trial for trial in found if trial.scores and trial.status != "failed"]


def best(found: Sequence[Trial]) -> Trial:
    """Return the comparable trial with the best epoch, on a tie the earliest."""
    return max(comparable(found), key=lambda trial: trial.score)


def to_parquet(recipe: Recipe, space: Mapping[str, Dimension], found: Sequence[Trial]) -> bytes:
    """Return a Parquet file with one row per trial and one column per setting."""
    columns: dict[str, list[Any]] = {
        "trial": [trial.name for trial in found],
        "status": [trial.status for trial in found],
        "reason": [trial.reason for trial in found],
        "score": [trial.score if comparable([trial]) else None for trial in found],
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
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)


def _read(out: Storage, folder: str) -> Trial:
    return Trial.model_validate_json(out.read(f"{folder}/{RECORD}"))


def _write(out: Storage, trial: Trial) -> None:
    out.write(f"{trial.folder}/{RECORD}", trial.model_dump_json(indent=1).encode())
