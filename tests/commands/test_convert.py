import hashlib
from pathlib import Path

import pytest
import torch

from aupipe.commands.convert import main
from aupipe.models import insightface
from aupipe.models.backbone import make

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(insightface, "PUBLISHED", ("iresnet_quick",))  # the class is the same, the file is small
    torch.save(make("iresnet_quick", 112).network.state_dict(), tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


def test_prints_network_parameters_and_hash_of_the_file(file: str, capsys: pytest.CaptureFixture) -> None:
    out = file.replace("w.pth", "new/w.safetensors")
    assert main([file, "--out", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: iresnet_quick, 1,111,792 parameters"
    assert lines[1] == f"{out}: sha256 {hashlib.sha256(Path(out).read_bytes()).hexdigest()}"


def test_dry_run_writes_nothing(file: str, capsys: pytest.CaptureFixture) -> None:
    out = file.replace("w.pth", "w.safetensors")
    assert main([file, "--out", out, "--dry-run"]) == 0
    assert f"would write {out}" in capsys.readouterr().out
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("none.pth", ["--out", "w.safetensors"], "none.pth cannot be read"),
        ("w.pth", ["--out", "w.pt"], "must end with .safetensors"),
        ("w.pth", ["--out", "w.safetensors", "--set", "size=3"], "size"),
        ("text.pth", ["--out", "w.safetensors"], "text.pth"),
    ],
)
def test_wrong_usage_exits_2_with_one_sentence(
    file: str, source: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    Path(file).with_name("text.pth").write_bytes(b"no weights")
    assert main([str(Path(file).with_name(source)), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
