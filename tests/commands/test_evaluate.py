from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands.evaluate import main
from aupipe.models import checkpoint
from aupipe.models.build import ModelConfig, build
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


@pytest.fixture
def trained(tmp_path: Path) -> str:
    card = checkpoint.Card(
        model=ModelConfig(backbone="test_resnet", width=16, heads=2, mlp_width=16), input=InputSpec(size_px=32),
        template=((0, 0),) * 5,
    )  # fmt: skip
    checkpoint.save(Storage(tmp_path / "best"), build(card.model, card.input), card)
    return str(tmp_path / "best")


def test_dry_run_says_what_would_be_scored(
    trained: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=1, validation=2, frames=10)
    assert main(["--checkpoint", trained, "--data", store, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "20 crops of validation" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_wrong_checkpoint_split_or_setting_exits_2(
    trained: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = make_store(train=1, validation=2, frames=10)
    out = ["--out", str(tmp_path / "out")]
    for arguments, said in (
        (["--checkpoint", str(tmp_path / "none"), "--data", store], "no checkpoint"),
        (["--checkpoint", trained, "--data", store, "--split", "test"], "validation"),
        (["--checkpoint", trained, "--data", str(tmp_path)], "preprocess.py"),
        (["--checkpoint", trained, "--data", store, "--set", "resource.gpu=false"], "resources"),
    ):
        assert main([*arguments, *out]) == 2, arguments
        assert said in capsys.readouterr().err
