import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands.train import main

pytestmark = pytest.mark.unit

QUICK = ["--recipe", "multilabel_transformer", "--quick"]


def test_help_answers_without_torch_or_ray() -> None:
    script = "import sys, aupipe.commands.train as t\ntry: t.main(['--help'])\nexcept SystemExit: pass\n"
    script += "print(sorted({'torch', 'ray', 'cv2'} & set(sys.modules)))"
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "examples:" in done.stdout
    assert time.monotonic() - begun < 20


def test_dry_run_prints_parameters_and_steps_and_writes_nothing(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=4, validation=2, frames=10, unknown=0)
    out = tmp_path / "run"
    arguments = ["--data", store, "--out", str(out), "--dry-run", "--set", "stages.train.batch=5"]
    assert main([*QUICK, *arguments]) == 0
    text = capsys.readouterr().out
    assert "30 crops of 3 videos (1 more held out)" in text
    assert "epochs of 6 steps of 5" in text
    assert "trainable" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "nope"], "multilabel_transformer"),
        (["--recipe", "multilabel_transformer"], "--set stages.train.init=timm"),
        ([*QUICK, "--set", "stages.train.epoch=3"], "stages.train.epoch"),
        ([*QUICK, "--set", "stages.train.init=stage:first"], "names no earlier stage"),
        ([*QUICK, "--set", "stages.train.batch=9999"], "stages.train.batch"),
        ([*QUICK, "--set", "model.backbone=nonet"], "nonet"),
        ([*QUICK, "--workers", "0"], "--workers"),
        ([*QUICK, "--split", "fold:4"], "fold:3"),
        ([*QUICK, "--split", "train"], "--split train"),
        ([*QUICK, "--set", "stages.train.data.held_out=0.6"], "stages.train.data.held_out"),
    ],
)
def test_wrong_configuration_exits_2_and_names_it(
    arguments: list[str], said: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=4, validation=2, frames=10)
    assert main([*arguments, "--data", store, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_store_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*QUICK, "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "preprocess.py" in capsys.readouterr().err
