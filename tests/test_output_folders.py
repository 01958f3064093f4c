"""A folder of one kind of job is refused by the others, before they write anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from aupipe import output_folders
from aupipe.errors import ConfigError
from aupipe.storage import Storage
from aupipe.training import run_dir

pytestmark = pytest.mark.unit

KINDS = {
    "an annotation": ["run.json", "videos.parquet"], "a training run": ["run.json", "metrics.jsonl"],
    "scores": ["scores.json", "curves.png"], "a face store": ["store.json"], "a data set": ["dataset.json"],
    "a checkpoint": ["model.json", "model.safetensors"],
}  # fmt: skip


@pytest.mark.parametrize("place", ["{tmp}/out", "memory://aupipe-kinds/out"])
@pytest.mark.parametrize("own", KINDS)
def test_only_a_folder_of_the_own_kind_is_accepted(own: output_folders.Kind, place: str, tmp_path: Path) -> None:
    storage = Storage(place.format(tmp=tmp_path))
    output_folders.check(storage, own)
    storage.write("notes.txt", b"mine")
    output_folders.check(storage, own)
    for kind, names in KINDS.items():
        for name in names:
            storage.write(name, b"{}")
        if kind == own:
            output_folders.check(storage, own)
        else:
            with pytest.raises(ConfigError, match=rf"holds {kind} \(.*, and {own} would be mixed with it; fix: name a"):
                output_folders.check(storage, own)
        storage.delete_many(names)


def test_an_annotation_that_was_killed_early_is_one(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("_work/attempts/a", b"")
    with pytest.raises(ConfigError, match=r"holds an annotation \(_work\)"):
        run_dir.begin(storage, {"recipe": {}})
    assert storage.names() == ["_work/attempts/a"]


def test_a_check_of_a_run_writes_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    run_dir.check(storage, {"seed": 1})
    assert storage.names() == []
    run_dir.begin(storage, {"seed": 1})
    run_dir.check(storage, {"seed": 1})
    with pytest.raises(ConfigError, match=r"other settings \(seed was 1, now 2\)"):
        run_dir.check(storage, {"seed": 2})
