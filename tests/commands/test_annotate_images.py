"""`annotate.py` on images: which of them its plan counts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from aupipe.commands.annotate import main

pytestmark = pytest.mark.unit


def test_the_plan_counts_images_by_the_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), np.zeros((24, 32, 3), np.uint8))

    def plan(*options: str) -> str:
        assert main(["--input", f"{tmp_path}/in", "--out", f"{tmp_path}/out", "--dry-run", *options]) == 0
        return capsys.readouterr().out

    sequence = plan("--set", "images=sequence")
    assert "1 inputs (0 other files" in sequence
    assert "about 3 frames" in sequence
    (tmp_path / "in" / "a.mp4").touch()
    mixed = plan()
    assert "1 inputs (3 other files" in mixed
    assert "3 of them are images; take them with --set images=each" in mixed
