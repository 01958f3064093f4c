from pathlib import Path

import pytest

from aupipe.commands.synthesize import main

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "option",
    ["--pairs=2", "--seconds=3", "--edition=abaw2", "--set=render.crf=30", "--set=detector.min_score=0.7",
     "--set=alignment.smoothing_radius=2"],
)  # fmt: skip
def test_options_of_videos_are_refused_for_pictures(tmp_path: Path, capsys: pytest.CaptureFixture, option: str) -> None:
    given = ["--out", str(tmp_path / "set"), "--videos", "6", "--dry-run"]
    assert main([*given, option]) == 0
    assert main([*given, "--stills", "2", option]) == 2
    assert "has no effect on --stills" in capsys.readouterr().err


def test_pictures_have_a_size(tmp_path: Path) -> None:
    given = ["--out", str(tmp_path / "set"), "--videos", "6", "--stills", "2", "--dry-run"]
    assert main([*given, "--set", "render.size_px=200", "--set", "resources.gpu=false"]) == 0
