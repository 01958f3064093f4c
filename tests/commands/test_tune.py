from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands.tune import main

pytestmark = pytest.mark.unit

QUICK = ["--recipe", "multilabel_transformer", "--quick"]


def test_dry_run_prints_search_space_and_shared_stages_and_writes_nothing(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store, out = make_store(train=6, validation=2, frames=40, unknown=0), tmp_path / "search"
    recipe = ["--recipe", "prompt_tuning", "--quick", "--set", "stages.prompts.batch=1"]
    assert main([*recipe, "--data", store, "--out", str(out), "--trials", "4", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "4 trials (random), including the unmodified recipe: 0 done, 0 started" in text
    assert "stages.prompts.model.prompts.length: choice 2, 5, 10, 20" in text
    assert "once for all trials: cnn, base" in text
    assert "stage prompts:" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*QUICK, "--trials", "0"], "--trials: 0 (1 or more)"),
        ([*QUICK, "--workers", "0"], "--workers: 0 (1 or more)"),
        ([*QUICK, "--set", "search.train=null"], "has no search space"),
        ([*QUICK, "--set", "search.train={batches: {choice: [8]}}"], "stages.train.batches"),
        ([*QUICK, "--set", "search.train={batch: {choose: [8]}}"], "choose"),
        (["--recipe", "multilabel_transformer"], "--set stages.train.init=timm"),
    ],
)
def test_wrong_configuration_exits_2_and_names_it(
    arguments: list[str], message: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=6, validation=2, frames=12)
    assert main([*arguments, "--data", store, "--out", str(tmp_path / "search")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "search").exists()
