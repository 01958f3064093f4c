import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands.tune import main

pytestmark = pytest.mark.unit

QUICK = ["--recipe", "multilabel_transformer", "--quick"]


def test_help_answers_without_torch_or_ray() -> None:
    script = "import sys, aupipe.commands.tune as t\ntry: t.main(['--help'])\nexcept SystemExit: pass\n"
    script += "print(sorted({'torch', 'ray', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "examples:" in done.stdout


def test_dry_run_says_what_is_searched_and_shared_and_writes_nothing(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store, out = make_store(train=6, validation=2, frames=40, unknown=0), tmp_path / "search"
    recipe = ["--recipe", "prompt_tuning", "--quick", "--set", "stages.prompts.batch=1"]
    assert main([*recipe, "--data", store, "--out", str(out), "--trials", "4", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "4 trials (random), the recipe as it is among them: 0 done, 0 begun" in text
    assert "stages.prompts.model.prompts.length: choice 2, 5, 10, 20" in text
    assert "once for all trials: cnn, base" in text
    assert "stage prompts:" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*QUICK, "--trials", "0"], "--trials 0"),
        ([*QUICK, "--workers", "0"], "--workers 0"),
        ([*QUICK, "--set", "search.train=null"], "has no search space"),
        ([*QUICK, "--set", "search.train={batches: {choice: [8]}}"], "stages.train.batches"),
        ([*QUICK, "--set", "search.train={batch: {choose: [8]}}"], "choose"),
        (["--recipe", "multilabel_transformer"], "--set stages.train.init=timm"),
    ],
)
def test_wrong_configuration_exits_2_and_names_it(
    arguments: list[str], said: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=6, validation=2, frames=12)
    assert main([*arguments, "--data", store, "--out", str(tmp_path / "search")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "search").exists()
