"""A search as a user runs it: bad trials stop early and release their resources, and the best one can be trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from aupipe.commands import train, tune
from aupipe.data import splits
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.pipelines.session import session
from aupipe.storage import Storage
from aupipe.training import recipe
from aupipe.tuning import search, trials
from aupipe.tuning.trials import Trial

pytestmark = pytest.mark.cluster

SETTINGS = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "input.size_px=32", "stages.train.batch=8",
    "stages.train.epochs=10", "stages.train.tasks.au.data.every_n=1", "stages.train.tasks.au.data.held_out=0.25",
]  # fmt: skip
ROOT = Path(__file__).parents[2]
ALPHA = "stages.train.tasks.au.loss.alpha"


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return a recipe that predicts every AU as present, and a search that also tries absent, with an F1 of 0."""
    plan = recipe.read("multilabel_transformer", quick=True, overrides=SETTINGS)
    plan = plan.changed({
        "stages.train.tasks.au.loss": {"kind": "focal", "alpha": 0.99, "gamma": 0},
        "stages.train.optimizer.groups.0.schedule": {"kind": "cosine", "lr": 0.02},
        "search": {"train": {"tasks.au.loss.alpha": {"choice": [0, 0.001]}}},
    })  # fmt: skip
    (tmp_path / "recipe.yaml").write_bytes(search.to_yaml(plan, "of a test"))
    return str(tmp_path / "recipe.yaml")


@pytest.fixture
def two_cpus() -> Iterator[None]:
    with session(num_cpus=2, dashboard=True, log_to_driver=False):
        yield


def test_a_short_search(make_store: Callable[..., str], tmp_path: Path, file: str, two_cpus: None) -> None:
    """A search of the recipe's own settings alone."""
    store, out = make_store(train=8, validation=3, frames=16), tmp_path / "search"
    arguments = ["--recipe", file, "--data", store, "--out", str(out), "--trials", "1"]
    assert tune.main([*arguments, "--set", "stages.train.epochs=2"]) == 0
    (trial,) = pq.read_table(out / "trials.parquet").to_pylist()
    assert (trial["trial"], trial["status"], trial["epochs"], trial[ALPHA]) == ("default", "finished", 2, 0.99)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["unseen"]["videos"] == 3
    assert checkpoint.load_card(str(out / "best")).training.videos


@pytest.mark.slow
def test_a_trial_with_invalid_settings_fails_at_once_and_the_others_go_on(
    make_store: Callable[..., str], tmp_path: Path, file: str, two_cpus: None
) -> None:
    store, out = make_store(train=8, validation=3, frames=16), tmp_path / "search"
    space = "search.train={tasks.au.loss.alpha: null, model.width: {choice: [16, 20]}, model.heads: {choice: [8]}}"
    settings = ["stages.train.epochs=2", "model.width=16", "model.heads=4", space]
    arguments = ["--recipe", file, "--data", store, "--out", str(out), "--trials", "3"]
    assert tune.main([*arguments, *(part for setting in settings for part in ("--set", setting))]) == 0
    table = pq.read_table(out / "trials.parquet").to_pylist()
    found = {row["stages.train.model.width"]: row for row in table if row["trial"] != search.DEFAULT}
    assert {width: row["status"] == "failed" for width, row in found.items()} == {16: False, 20: True}
    assert "width 20 is no multiple of heads 8" in found[20]["reason"]


@pytest.mark.slow
def test_a_fault_of_the_disk_ends_the_search_and_the_same_command_resumes(
    make_store: Callable[..., str], tmp_path: Path, file: str, two_cpus: None, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = make_store(train=8, validation=3, frames=16), tmp_path / "search"
    arguments = ["--recipe", file, "--data", store, "--out", str(out), "--trials", "1"]
    blocked = out / trials.FOLDER / search.DEFAULT / "stages"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file, so that no folder can be made here")
    assert tune.main([*arguments, "--set", "stages.train.epochs=2"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tune.py: ")]
    assert str(blocked) in line
    assert "; fix: " in line
    blocked.unlink()
    assert tune.main([*arguments, "--set", "stages.train.epochs=2"]) == 0
    (trial,) = pq.read_table(out / "trials.parquet").to_pylist()
    assert (trial["status"], trial["epochs"]) == ("finished", 2)


@pytest.mark.slow
def test_bad_trials_stop_early_and_the_best_recipe_can_be_trained(
    make_store: Callable[..., str], tmp_path: Path, file: str, two_cpus: None, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = make_store(train=8, validation=3, frames=16), tmp_path / "search"
    arguments = ["--recipe", file, "--data", store, "--out", str(out), "--trials", "3"]
    assert tune.main(arguments) == 0

    table = pq.read_table(out / "trials.parquet").to_pandas().set_index("trial")
    assert sorted(table[ALPHA]) == [0, 0.001, 0.99]
    assert table.loc["default", ALPHA] == 0.99
    assert table["score"].idxmax() == "default"
    assert table.loc["default", "epochs"] == 10
    assert "stopped" in set(table["status"])
    assert (table[table["status"] == "stopped"]["epochs"] < 10).all()
    deadline = time.monotonic() + 60
    while any(group["state"] != "REMOVED" for group in ray.util.placement_group_table().values()):
        assert time.monotonic() < deadline, ray.util.placement_group_table()
        time.sleep(0.1)

    index = FaceStore.open(store)
    steered = splits.eval_part(index, splits.SEARCH).videos
    card = checkpoint.load_card(str(out / "best")).training
    assert not steered & {*card.videos, *card.held_out_videos}
    assert {*steered, *card.videos, *card.held_out_videos} == set(index.labels("train")["video_id"].to_pylist())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["unseen"]["videos"] == 3
    assert summary["unseen"]["macro_f1"] > 0
    assert (out / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert "best: default" in capsys.readouterr().out

    best = ["--recipe", str(out / "best.yaml"), "--data", store, "--out", str(tmp_path / "run")]
    assert train.main([*best, "--dry-run"]) == 0
    assert tune.main(arguments) == 0
    assert json.loads((out / "summary.json").read_text()) == summary


@pytest.mark.slow
def test_a_killed_search_resumes(make_store: Callable[..., str], tmp_path: Path, file: str) -> None:
    store, out = make_store(train=8, validation=3, frames=16), tmp_path / "search"
    arguments = ["--recipe", file, "--data", store, "--out", str(out), "--set", "stages.train.epochs=30"]
    driver = subprocess.Popen([sys.executable, "jobs/tune.py", *arguments, "--trials", "3"], cwd=ROOT)
    try:
        found, half = wait_for_half(driver, Storage(out))
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not (out / "summary.json").exists()

    assert tune.main([*arguments, "--trials", "3"]) == 0
    after = {trial.name: trial for trial in trials.read(Storage(out))}
    assert len(after) == 3
    for trial in found:
        assert after[trial.name].began_s == trial.began_s
        assert trial.status == "running" or after[trial.name] == trial
    epochs = [line["epoch"] for line in trials.epochs(Storage(out), after[half.name])]
    assert epochs == list(range(len(epochs)))

    assert tune.main([*arguments, "--trials", "2"]) == 0  # fewer trials than completed ones, so nothing runs
    more = [*arguments[:-2], "--set", "stages.train.epochs=31"]
    assert tune.main([*more, "--trials", "3"]) == 2  # the folder of another search


def wait_for_half(driver: subprocess.Popen, out: Storage) -> tuple[list[Trial], Trial]:
    """Wait until one trial is done and another is in the middle of its epochs, and return the trials."""
    deadline = time.monotonic() + 400
    while True:
        found = trials.read(out)
        half = [trial for trial in found if not trial.ended_s and trials.epochs(out, trial)]
        if half and any(trial.ended_s for trial in found):
            return found, half[0]
        assert driver.poll() is None, "the search ended by itself"
        assert time.monotonic() < deadline, "nothing to kill"
        time.sleep(0.05)
