"""The folder of a training run, `--out RUN`: what it was started with, its metrics, its summary."""

from __future__ import annotations

import json
from typing import Any

from aupipe.errors import ConfigError
from aupipe.facestore.read import FaceStore
from aupipe.storage import Storage
from aupipe.training.recipe import Recipe

STARTED, METRICS, SUMMARY, BEST = "run.json", "metrics.jsonl", "summary.json", "best"


def identity(recipe: Recipe, index: FaceStore, split: str) -> dict[str, Any]:
    """All that decides the weights, but for the worker count: a run goes on only with the same."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"resources", "embeddings", "save_every_s", "search"}),
        "store_sha256": index.sha256,
        "split": split,
    }


def begin(folder: Storage, wanted: dict[str, Any]) -> None:
    """Mark the folder as that of this run; a folder of the same run is taken up again.

    Raises:
        ConfigError: it is another run's.
    """
    if not folder.exists(STARTED):
        folder.write(STARTED, json.dumps(wanted, indent=1).encode())
        return
    different = _differences(json.loads(folder.read(STARTED)), wanted)
    if different:
        raise ConfigError(f"{folder.root} holds a run with other settings ({different[0]}); give another --out")


def summary(folder: Storage) -> dict[str, Any] | None:
    """The summary of a finished run; None of one that is not."""
    found: dict[str, Any] | None = json.loads(folder.read(SUMMARY)) if folder.exists(SUMMARY) else None
    return found


def write_metrics(folder: Storage, history: list[dict[str, Any]]) -> None:
    """One line an epoch. Written whole each time, so an epoch that was done again after a crash stands there once."""
    folder.write(METRICS, "".join(json.dumps(line) + "\n" for line in history).encode())


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    """`key was old, now new` for every leaf that differs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{key} was {old}, now {new}"]
    return [
        line
        for name in sorted(old.keys() | new.keys())
        for line in _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    ]
