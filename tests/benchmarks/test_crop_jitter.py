"""`bench.py crop_jitter`: smoothing lowers the jitter of a clip with a shaking face."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aupipe.commands.bench import main
from aupipe.faces.search import SearchConfig
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit


def test_smoothing_lowers_jitter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    shifts = rng.integers(-2, 3, (20, 2))
    images = [np.roll(image, tuple(s), axis=(0, 1)) for image, s in zip(scene(20), shifts, strict=True)]
    path = write_clip(tmp_path / "a.mp4", images)
    assert main(["crop_jitter", "--input", str(path)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["videos"], figures["every"]) == (1, SearchConfig().every)
    assert 0 < figures["jitter_smoothed_px"] < figures["jitter_raw_px"] / 2


def test_a_clip_without_a_face_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_clip(tmp_path / "empty.mp4", scene(5, people=()))
    assert main(["alignment", "--input", str(path)]) == 2
    assert "no face" in capsys.readouterr().err
