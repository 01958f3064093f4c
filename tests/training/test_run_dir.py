import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.errors import ConfigError
from aupipe.facestore.read import FaceStore
from aupipe.storage import Storage
from aupipe.training import recipe, run_dir

pytestmark = pytest.mark.unit


def test_a_folder_belongs_to_one_run(tmp_path: Path, make_store: Callable[..., str]) -> None:
    index, other_store = (FaceStore.open(make_store(train=2, frames=4, seed=seed)) for seed in (0, 1))
    read = recipe.read("multilabel_transformer", quick=True)
    folder = Storage(tmp_path / "run")
    run_dir.begin(folder, run_dir.identity(read, index, "official"))
    run_dir.begin(folder, run_dir.identity(read, index, "official"))  # the same again
    elsewhere = read.model_copy(update={"resources": read.resources.model_copy(update={"gpu": False})})
    run_dir.begin(folder, run_dir.identity(elsewhere, index, "official"))  # where it runs is no part of what it is
    with pytest.raises(ConfigError, match=r"recipe\.seed was 0, now 3"):
        run_dir.begin(folder, run_dir.identity(read.model_copy(update={"seed": 3}), index, "official"))
    with pytest.raises(ConfigError, match="store_sha256"):
        run_dir.begin(folder, run_dir.identity(read, other_store, "official"))
    folder.write(run_dir.STARTED, b"{")
    with pytest.raises(ConfigError, match=r"run\.json is not JSON"):
        run_dir.check(folder, {})
    folder.write(run_dir.SUMMARY, b"")
    with pytest.raises(ConfigError, match=r"summary\.json is not JSON"):
        run_dir.summary(folder)


def test_metrics_are_written_whole(tmp_path: Path) -> None:
    folder = Storage(tmp_path)
    run_dir.write_metrics(folder, [{"epoch": 0}, {"epoch": 1}])
    run_dir.write_metrics(folder, [{"epoch": 0}])
    assert [json.loads(line) for line in (tmp_path / run_dir.METRICS).read_text().splitlines()] == [{"epoch": 0}]


def test_tensorboard_has_a_file_per_epoch_on_any_storage() -> None:
    folder = Storage("memory://tensorboard")
    for epoch in (0, 1, 1):  # within a second; the last one is repeated
        run_dir.write_events(folder, "train", {"stage": "train", "epoch": epoch, "loss": 0.5, "train_s": 1.0})
    first, second = folder.names()
    assert (first, second[-2:]) == ("tensorboard/train/events.out.tfevents.0000000000", "01")
    assert b"loss" in folder.read(second)


@pytest.mark.parametrize("key", ["store", "add", "init", "file"])
def test_a_run_over_other_stores_or_weights_is_not_resumed(
    key: str, tmp_path: Path, make_store: Callable[..., str], make_checkpoint: Callable[..., str]
) -> None:
    index, named = FaceStore.open(make_store(train=2, frames=4)), tmp_path / "input"
    setting = {
        "store": f"stages.train.tasks.au.data.store={named}", "add": f"stages.train.tasks.au.data.add=[{named}]",
        "init": f"stages.train.init={named}", "file": f"stages.train.init={named}/model.safetensors",
    }[key]  # fmt: skip
    make = make_store if key in ("store", "add") else make_checkpoint
    first, second = (make(seed=seed) for seed in (3, 4))
    read = recipe.read("multilabel_transformer", quick=True, overrides=[setting])
    plain = recipe.read("multilabel_transformer", quick=True, overrides=["stages.train.init=random"])
    assert run_dir.INPUTS not in run_dir.identity(plain, index, "official")

    earlier, folder = Storage(tmp_path / "earlier"), Storage(tmp_path / "run")
    run_dir.begin(earlier, run_dir.identity(read, index, "official"))  # there is no such input yet
    shutil.copytree(first, named)
    run_dir.begin(folder, run_dir.identity(read, index, "official"))
    shutil.rmtree(named)
    run_dir.check(folder, run_dir.identity(read, index, "official"))  # the plan reports that it is missing
    shutil.copytree(second, named)
    with pytest.raises(ConfigError, match=r"inputs_sha256\..*input.* was \w{64}, now \w{64}"):
        run_dir.check(folder, run_dir.identity(read, index, "official"))
    run_dir.check(earlier, run_dir.identity(read, index, "official"))  # nothing is known of its input
