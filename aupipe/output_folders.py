"""The kinds of output folders. Jobs whose files could replace those of others refuse a folder of another kind."""

from __future__ import annotations

from typing import Literal

from aupipe.errors import ConfigError, redact
from aupipe.storage import Storage

Kind = Literal["an annotation", "a training run", "scores", "a face store", "a data set", "a checkpoint"]

# Any of these names shows the kind, the first one that exists. Both an annotation and a run have a run.json.
_MARKS: dict[str, Kind] = {
    "videos.parquet": "an annotation", "_work": "an annotation", "run.json": "a training run", "folds.json":
    "a training run", "scores.json": "scores", "store.json": "a face store", "dataset.json": "a data set",
    "model.json": "a checkpoint",
}  # fmt: skip


def check(storage: Storage, own: Kind) -> None:
    """Raise an error if a folder is of another kind.

    Raises:
        ConfigError: it is.
    """
    for mark, kind in _MARKS.items():
        if storage.exists(mark):
            if kind != own:
                raise ConfigError(
                    f"--out: {redact(storage.root)} holds {kind} ({mark}), and {own} would be mixed with it; "
                    "fix: name a new folder"
                )
            return
