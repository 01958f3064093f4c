"""The measurement of training: both loops read the same crops and labels, and every way is timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe.benchmarks import train
from aupipe.benchmarks.noise_store import generate
from aupipe.benchmarks.train import Case
from aupipe.commands import bench
from aupipe.data.readers import CropReader
from aupipe.facestore.columns import labels
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def test_both_loops_read_the_same_and_are_timed(tmp_path: Path) -> None:
    index = generate(Storage(tmp_path / "store"), videos=2, frames=40, key="test")
    train._write_files(index, tmp_path)
    files = train._Files(tmp_path)
    assert len(files) == index.rows("train") == 80
    crops = CropReader(index, "train", keep_groups=1).read(np.arange(80))
    known = labels(index.labels("train"))
    for number in (0, 41, 79):
        crop, targets = files[number]
        assert torch.equal(crop, crops[number])
        assert np.array_equal(targets.numpy(), known[number])
    train._worker(0, 1, train._free_port(), Case("", 80, 16), str(tmp_path), 1)
    result = json.loads((tmp_path / "result.json").read_text())
    plain = max(result["plain_per_s"], result["plain_loader_per_s"])
    assert result["aupipe_per_s"] > 0
    assert result["ratio"] == pytest.approx(result["aupipe_per_s"] / plain, abs=0.02)


def test_no_repeats_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["train", "--repeats", "0"]) == 2
    assert "--repeats 0: must be at least 1" in capsys.readouterr().err
