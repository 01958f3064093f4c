"""Training on three folds and scoring on the fourth, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands import evaluate, train
from aupipe.data import splits
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint

pytestmark = pytest.mark.ray

SETTINGS = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "input.size_px=32", "stages.train.batch=8",
    "stages.train.epochs=1", "stages.train.tasks.au.data.every_n=1", "stages.train.tasks.au.data.held_out=0.3",
]  # fmt: skip


@pytest.mark.slow  # tests/pipelines/test_train.py trains in make test
def test_the_held_out_fold_is_scored(make_store: Callable[..., str], tmp_path: Path, ray_session: None) -> None:
    store, run, out = make_store(train=5, validation=3, frames=16), tmp_path / "run", tmp_path / "scores"
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = ["--recipe", "multilabel_transformer", "--quick", "--data", store, "--workers", "1"]
    assert train.main([*arguments, *settings, "--out", str(run), "--split", "fold:2"]) == 0
    card = checkpoint.load_card(str(run / "best")).training
    left_out = splits.eval_part(FaceStore.open(store), "fold:2").videos
    assert card.split == "fold:2"
    assert card.held_out_videos
    assert not left_out & {*card.videos, *card.held_out_videos}
    assert len(left_out | {*card.videos, *card.held_out_videos}) == 8

    best = ["--checkpoint", str(run / "best"), "--data", store, "--out", str(out)]
    assert evaluate.main([*best, "--split", "fold:1"]) == 2  # a training fold
    assert evaluate.main([*best, "--split", "fold:2"]) == 0
    scores = json.loads((out / "scores.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert scores["n_videos"] == len(left_out)
    assert scores["macro_f1"] == pytest.approx(summary["macro_f1"])
    assert scores["floor"] == pytest.approx(summary["floor"])
