"""The folder of a training run, `--out RUN`: its settings, metrics and summary."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from aupipe import output_folders
from aupipe.errors import ConfigError
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import CARD
from aupipe.storage import Storage
from aupipe.training import pretrained
from aupipe.training.recipe import FROM_STAGE, Recipe

STARTED, METRICS, SUMMARY, BEST = "run.json", "metrics.jsonl", "summary.json", "best"
CURVES = "curves.png"
INPUTS = "inputs_sha256"


def identity(recipe: Recipe, index: FaceStore, split: str) -> dict[str, Any]:
    """Return everything that determines the weights except the worker count. A run only resumes with equal values."""
    settings = {
        "recipe": recipe.model_dump(mode="json", exclude={"resources", "embeddings", "save_every_s", "search"}),
        "store_sha256": index.sha256,
        "split": split,
    }
    inputs = _inputs(recipe)
    return settings | ({INPUTS: inputs} if inputs else {})


def _inputs(recipe: Recipe) -> dict[str, str]:
    """Return path → hash of the face stores and initial weights that the recipe names, of those that exist."""
    stages = [recipe.stages[name] for name in recipe.needed()]
    data = [task.data for stage in stages for task in stage.tasks.named.values()]
    stores = {uri for each in data for uri in (each.store, *each.add) if uri and Storage(uri).exists(CARD)}
    found = {uri: FaceStore.open(uri).sha256 for uri in sorted(stores)}
    for init in (stage.init for stage in stages if not stage.init.startswith(FROM_STAGE)):
        if (sha256 := pretrained.content_hash(init)) is not None:
            found[init] = sha256
    return found


def check(folder: Storage, settings: dict[str, Any]) -> None:
    """Check that a folder is new, or has a run with these settings to resume.

    Raises:
        ConfigError: it has a run with other settings, or files of another job.
    """
    output_folders.check(folder, "a training run")
    if not folder.exists(STARTED):
        return
    different = _differences(_read(folder, STARTED), settings)
    if different:
        raise ConfigError(f"{folder.root} contains a run with other settings ({different[0]}); give another --out")


def begin(folder: Storage, settings: dict[str, Any]) -> None:
    """Write the settings of this run into the folder, or check that they equal those of the run to resume.

    Raises:
        ConfigError: as `check`.
    """
    check(folder, settings)
    if not folder.exists(STARTED):
        folder.write(STARTED, json.dumps(settings, indent=1).encode())


def summary(folder: Storage) -> dict[str, Any] | None:
    """Return the summary of a run; None if it is not finished."""
    found: dict[str, Any] | None = _read(folder, SUMMARY) if folder.exists(SUMMARY) else None
    return found


def _read(folder: Storage, name: str) -> Any:
    try:
        return json.loads(folder.read(name))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{folder.path(name)} is not JSON ({error}); fix: give another --out") from None


def write_metrics(folder: Storage, history: list[dict[str, Any]]) -> None:
    """Write one line per epoch. The file is always rewritten, so an epoch repeated after a crash occurs once."""
    folder.write(METRICS, "".join(json.dumps(line) + "\n" for line in history).encode())


def write_events(folder: Storage, stage: str, figures: dict[str, Any]) -> None:
    """Write the figures of an epoch for TensorBoard, in a file of its own, which a repeated epoch replaces."""
    from tensorboardX import SummaryWriter

    epoch = int(figures["epoch"])
    with tempfile.TemporaryDirectory() as local:  # tensorboardX itself writes to few kinds of storage
        with SummaryWriter(local, purge_step=epoch) as writer:
            for key, value in figures.items():
                if isinstance(value, float) and not key.endswith("_s"):
                    writer.add_scalar(key, value, epoch)
        (events,) = Path(local).iterdir()
        folder.write(f"tensorboard/{stage}/events.out.tfevents.{epoch:010d}", events.read_bytes())


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Return `key was old, now new` for every leaf that differs."""
    if key.startswith(INPUTS) and (old is None or new is None):
        return []  # earlier versions recorded no inputs, and an input may have been deleted since
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{key} was {old}, now {new}"]
    return [
        line
        for name in sorted(old.keys() | new.keys())
        for line in _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    ]
