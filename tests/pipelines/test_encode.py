"""Encoding once as a user runs it: the same weights as encoding in every epoch, and no crop is encoded twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from aupipe.commands import train
from aupipe.config import Inference, Resources
from aupipe.data import embedding_store
from aupipe.data.splits import SplitPart
from aupipe.facestore.read import FaceStore
from aupipe.models.checkpoint import load_card
from aupipe.pipelines.encode import encode_stage
from aupipe.pipelines.predict import predict
from aupipe.training import recipe, task_data
from aupipe.training.learner import build_learner

pytestmark = pytest.mark.ray

TINY = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "model.clip_frames=8", "model.token_grid=[1,1]",
    "input.size_px=32", "stages.base.tasks.au.data.clip_frames=8",
    "stages.base.epochs=2", "stages.base.batch=4", "stages.prompts=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(make_store: Callable[..., str]) -> str:
    return make_store(train=6, validation=2, frames=20)


def command(store: str, out: Path, *settings: str) -> list[str]:
    chosen = [part for setting in (*TINY, *settings) for part in ("--set", setting)]
    return ["--recipe", "prompt_tuning", "--quick", "--data", store, "--out", str(out), "--workers", "1", *chosen]


def lines(run: Path) -> list[dict]:
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith(("_s", "_mb"))} for line in history]


@pytest.mark.slow
def test_run_ends_in_the_bits_of_one_that_encodes_in_every_epoch(
    store: str, checkpoint: str, tmp_path: Path, ray_session: None
) -> None:
    start = ("stages.cnn=null", f"stages.base.init={checkpoint}")
    once, fly, kept = (tmp_path / name for name in ("once", "fly", "kept"))
    assert train.main(command(store, once, *start, f"embeddings={kept}", "stages.base.encode_once={}")) == 0
    assert len(list(kept.rglob("*.parquet"))) == 2  # train and validation, without augmentation
    assert train.main(command(store, fly, *start, "stages.base.augment={flip: false, gain: 0, contrast: 0}")) == 0
    assert lines(fly) == lines(once)
    assert (fly / "best/model.safetensors").read_bytes() == (once / "best/model.safetensors").read_bytes()
    cards = [load_card(str(run / "best")) for run in (once, fly)]
    assert cards[0].thresholds == cards[1].thresholds
    assert not (fly / "embeddings").exists()

    (validation,) = kept.rglob("split=validation/*.parquet")
    index = FaceStore.open(store)
    nothing = torch.full((index.rows("validation"), pq.read_schema(validation).field(0).type.list_size), torch.nan)
    validation.write_bytes(embedding_store.to_parquet(nothing))
    part = SplitPart("validation")
    (predictions,) = predict([str(once / "best")], index, (part,), Inference(), Resources(), str(kept))[part]
    assert np.isnan(predictions.probabilities).all()  # read, not computed again


def encode(store: str, out: Path, copies: int) -> dict[str, tuple[int, bytes]]:
    """Encode, and return file → time of writing, bytes."""
    encode_once = {"copies": copies}
    plan = recipe.read("prompt_tuning", quick=True, overrides=[*TINY, f"stages.base.encode_once={encode_once}"])
    data = task_data.task_data(plan, "base", FaceStore.open(store))
    learner, _ = build_learner(plan, "base", data, None)
    (folders,) = encode_stage(plan, "base", data, learner.encoder, str(out)).values()
    assert len(folders.train) == max(copies, 1)
    assert all((Path(folder) / "embeddings.json").exists() for folder in (*folders.train, *folders.eval))
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in out.rglob("*.parquet")}


def test_nothing_is_encoded_twice(store: str, tmp_path: Path, ray_session: None) -> None:
    first = encode(store, tmp_path, copies=0)
    assert len(first) == 2
    lost, kept = sorted(first)
    Path(lost).unlink()
    second = encode(store, tmp_path, copies=0)
    assert second[kept] == first[kept]
    assert second[lost][0] > first[lost][0]
    assert second[lost][1] == first[lost][1]


@pytest.mark.slow
def test_augmented_copies_are_encoded_beside_plain_embeddings(store: str, tmp_path: Path, ray_session: None) -> None:
    plain = encode(store, tmp_path, copies=0)
    both = encode(store, tmp_path, copies=2)
    assert len(both) == 4  # two augmented copies of train; validation is not augmented
    assert {file: both[file] for file in plain} == plain


def test_a_trainable_encoder_is_refused_before_anything_starts(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*command(store, tmp_path / "run", "stages.cnn.encode_once={}"), "--dry-run"]) == 2
    assert "stages.cnn.encode_once: the encoder is trained" in capsys.readouterr().err
    assert train.main([*command(store, tmp_path / "run", "stages.base.encode_once.copies=2"), "--dry-run"]) == 0
    assert "encoded once (2 augmented copies)" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
