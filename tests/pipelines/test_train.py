"""Training as a user runs it: after two kills the same command ends in the bits of a run without kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands import train
from aupipe.models import checkpoint

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
EPOCHS = 5
SETTINGS = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "model.dropout=0.2", "input.size_px=32",
    "stages.train.batch=8", f"stages.train.epochs={EPOCHS}", "stages.train.tasks.au.data.held_out=0.25",
    "stages.train.tasks.au.data.every_n=1",
]  # fmt: skip

TWO_STAGES = [
    "input.size_px=32", "model.hidden=[8]", "stages.expressions.cross_validate=null", "stages.expressions.epochs=4",
    "stages.expressions.batch=8", "stages.expressions.tasks.expr.data.every_n=1", "stages.aus.epochs=4",
    "stages.aus.batch=8", "stages.aus.tasks.au.data.every_n=1",
]  # fmt: skip


def arguments(store: str, out: Path, workers: int = 2) -> list[str]:
    chosen = ["--recipe", "multilabel_transformer", "--quick", "--data", store, "--out", str(out)]
    chosen += ["--workers", str(workers)]
    return chosen + [part for setting in SETTINGS for part in ("--set", setting)]


def epochs_done(out: Path) -> int:
    return len((out / "metrics.jsonl").read_text().splitlines()) if (out / "metrics.jsonl").exists() else 0


def wait_for_epochs(out: Path, count: int, driver: subprocess.Popen) -> None:
    """Wait until the middle of epoch `count` + 1."""
    wait_for(lambda: epochs_done(out) >= count, driver)


def wait_for(happened: Callable[[], object], driver: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert driver.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def worker_of(driver: subprocess.Popen) -> int:
    """Return the pid of a training worker of that driver."""
    parents = {int(p.name): int((p / "stat").read_text().rpartition(")")[2].split()[1]) for p in processes()}
    for pid in parents:
        above = pid
        while above in parents and above != driver.pid:
            above = parents[above]
        if above == driver.pid and b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no training worker")


def processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit() and (path / "stat").exists()]


def without_costs(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith(("_s", "_mb"))} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["multilabel_transformer", "expression_transfer"])
def test_killed_three_times_at_random_moments_it_ends_in_the_same_bits(
    recipe: str, make_store: Callable[..., str], tmp_path: Path
) -> None:
    store = make_store(train=5, validation=3, frames=16)
    calm, rough = tmp_path / "calm", tmp_path / "rough"

    def command(out: Path) -> list[str]:
        if recipe == "multilabel_transformer":
            return arguments(store, out)
        chosen = ["--recipe", recipe, "--quick", "--data", store, "--out", str(out), "--workers", "2"]
        return chosen + [part for setting in TWO_STAGES for part in ("--set", setting)]

    start_s = time.monotonic()
    assert train.main(command(calm)) == 0
    whole_s = time.monotonic() - start_s
    moments = random.Random(recipe)
    for _ in range(3):
        driver = subprocess.Popen([sys.executable, "jobs/train.py", *command(rough)], cwd=ROOT)
        try:
            # Between the start of Ray and the duration of a whole run.
            driver.wait(timeout=moments.uniform(0.3, 1) * whole_s)
        except subprocess.TimeoutExpired:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
    assert train.main(command(rough)) == 0
    assert without_costs(rough) == without_costs(calm)
    assert (rough / "best/model.safetensors").read_bytes() == (calm / "best/model.safetensors").read_bytes()


@pytest.mark.timeout(1200)  # Six starts of processes with torch take long beside other tests.
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_worker_and_killed_driver_change_nothing(
    workers: int, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(train=5, validation=3, frames=16)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert train.main(arguments(store, calm, workers)) == 0

    often = ["--set", "save_every_s=0"]  # the restarted worker resumes within an epoch
    driver = subprocess.Popen([sys.executable, "jobs/train.py", *arguments(store, rough, workers), *often], cwd=ROOT)
    try:
        wait_for_epochs(rough, 1, driver)
        wait_for(lambda: list((rough / "stages/train").glob("epoch-0001-step-*")), driver)
        os.kill(worker_of(driver), signal.SIGKILL)
        wait_for_epochs(rough, 3, driver)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not (rough / "summary.json").exists()
    assert train.main(arguments(store, rough, workers)) == 0

    assert [line["epoch"] for line in without_costs(rough)] == list(range(EPOCHS))
    assert without_costs(rough) == without_costs(calm)
    for name in (f"stages/train/epoch-{EPOCHS - 1:04d}/model.safetensors", "best/model.safetensors"):
        assert (rough / name).read_bytes() == (calm / name).read_bytes(), name
    assert list((rough / "tensorboard" / "train").glob("events*"))

    summary = json.loads((calm / "summary.json").read_text())
    assert summary["stages"]["train"]["epochs"] == EPOCHS
    assert summary["floor"] > 0
    _, card = checkpoint.load(str(calm / "best"))
    assert len(card.training.held_out_videos) == 1
    assert len(card.training.videos) == 4
    assert card.training.thresholds_from == "held-out train videos"

    capsys.readouterr()
    assert train.main(arguments(store, calm, workers)) == 0
    assert "is complete; nothing to do" in capsys.readouterr().out
    assert train.main([*arguments(store, calm, workers), "--set", "seed=1"]) == 2  # the folder of another run
