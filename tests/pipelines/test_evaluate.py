"""Prediction on Ray equals prediction without it, row by row."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from aupipe import facs
from aupipe.commands.evaluate import main
from aupipe.data.embedding_store import encode_crops
from aupipe.data.readers import CropReader
from aupipe.evaluation import metrics
from aupipe.facestore.read import FaceStore
from aupipe.images.datasets import AFFECTNET_EXPRESSIONS
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig, MultilabelTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage
from conftest import ARCFACE

pytestmark = pytest.mark.ray


def test_predictions_and_scores_are_those_of_the_model(make_store: Callable[..., str], tmp_path: Path) -> None:
    store = make_store(train=1, validation=2, frames=280)
    card = checkpoint.Card(
        model=MultilabelTransformerConfig(backbone="test_resnet", width=16, heads=2, mlp_width=16),
        input=InputSpec(size_px=32),
        template=((0, 0),) * 5, thresholds=dict.fromkeys(facs.AUS, 0.5) | {"AU12": 0.4},
        smoothing=checkpoint.Smoothing(radius=2),
    )  # fmt: skip
    torch.manual_seed(0)
    checkpoint.save(Storage(tmp_path / "best"), build(card.model, card.input), card)
    assert main(["--checkpoint", str(tmp_path / "best"), "--data", store, "--out", str(tmp_path / "out")]) == 0

    index = FaceStore.open(store)
    system, _ = checkpoint.load(str(tmp_path / "best"))
    reader = CropReader(index, "validation", keep_groups=3)
    logits = encode_crops(system.encoder, card.input, reader, np.arange(560), torch.device("cpu"))
    raw = logits.sigmoid().numpy()
    rows = pd.read_parquet(io.BytesIO((tmp_path / "out" / "predictions.parquet").read_bytes()))
    assert rows[["video_id", "frame"]].to_numpy().tolist() == [
        [f"validation{video:02d}.mp4", frame] for video in range(2) for frame in range(1, 281)
    ]
    found = rows[[f"{au}_prob" for au in facs.AUS]].to_numpy()
    assert found[0] == pytest.approx(raw[:3].mean(0), abs=1e-6)
    assert found[300] == pytest.approx(raw[298:303].mean(0), abs=1e-6)
    labels = np.array(index.labels("validation")["au"].to_pylist(), dtype=np.int8)
    decided = rows[list(facs.AUS)].to_numpy()
    assert np.array_equal(decided[:, 6], rows["AU12_prob"] >= 0.4)

    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["macro_f1"] == pytest.approx(float(metrics.macro_f1(metrics.confusion(labels, decided))))
    assert (scores["split"], scores["n_videos"]) == ("validation", 2)
    assert scores["n_frames"] == int((labels >= 0).any(axis=1).sum())
    card = checkpoint.load_card(str(tmp_path / "best"))
    assert scores["models"] == [
        {"checkpoint": str(tmp_path / "best"), "sha256": card.sha256, "smoothing_radius": card.smoothing.radius}
    ]
    for name in ("scores.png", "curves.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_expressions_of_other_classes_have_no_score(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = make_store(train=1, validation=2, frames=12), tmp_path / "out"
    card = checkpoint.Card(
        model=ExpressionTransferConfig(backbone="test_resnet", outputs=("au", "expr"), hidden=(8,)),
        input=InputSpec(size_px=32), template=ARCFACE, expressions=AFFECTNET_EXPRESSIONS,
    )  # fmt: skip
    checkpoint.save(Storage(tmp_path / "best"), build(card.model, card.input), card)
    assert main(["--checkpoint", str(tmp_path / "best"), "--data", store, "--out", str(out)]) == 0
    assert "no score of expressions, because" in capsys.readouterr().out
    scores = json.loads((out / "scores.json").read_text())
    assert scores["expression"] is None
    assert "Contempt" in scores["expression_note"]
    assert "EXPR_Contempt_prob" in pd.read_parquet(out / "predictions.parquet").columns


@pytest.mark.slow  # the test above is its short case
def test_several_models_folds_and_groups(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture, ray_session: None
) -> None:
    store = make_store(train=4, validation=4, frames=20)
    members = []
    for seed in range(3):
        card = checkpoint.Card(
            model=MultilabelTransformerConfig(backbone="test_resnet", width=16, heads=2, mlp_width=16),
            input=InputSpec(size_px=32),
            template=((0, 0),) * 5, smoothing=checkpoint.Smoothing(radius=seed),
            thresholds=dict.fromkeys(facs.AUS, 0.48 + 0.01 * seed),
        )  # fmt: skip
        torch.manual_seed(seed)
        members.append(str(tmp_path / f"best{seed}"))
        checkpoint.save(Storage(members[-1]), build(card.model, card.input), card)

    def run(name: str, *arguments: str) -> tuple[dict, pd.DataFrame]:
        out = tmp_path / name
        assert main([*arguments, "--data", store, "--split", "fold:1", "--out", str(out)]) == 0
        return json.loads((out / "scores.json").read_text()), pd.read_parquet(out / "predictions.parquet")

    alone = [run(f"alone{seed}", "--checkpoint", path) for seed, path in enumerate(members)]
    vote, voted = run("vote", "--checkpoint", *members, "--set", "ensemble=vote", "--set", "evaluate.tune=true")
    mean, averaged = run("mean", "--checkpoint", *members)
    aus, probabilities = list(facs.AUS), [f"{au}_prob" for au in facs.AUS]
    votes = sum(rows[aus].to_numpy().astype(int) for _, rows in alone)
    assert np.array_equal(voted[aus].to_numpy(), votes >= 2)
    together = np.mean([rows[probabilities].to_numpy() for _, rows in alone], axis=0)
    assert averaged[probabilities].to_numpy() == pytest.approx(together, abs=1e-6)
    assert (vote["ensemble"], mean["ensemble"], len(vote["models"])) == ("vote", "mean", 3)
    assert vote["validation_tuned"]["macro_f1"] >= mean["stages"]["raw_at_0.5"]["macro_f1"]
    assert "validation_tuned" not in mean
    assert vote["n_videos"] == averaged["video_id"].nunique() == 2

    again, _ = run("again", "--predictions", str(tmp_path / "vote" / "predictions.parquet"))
    for key in ("macro_f1", "acc_elem", "acc_exact", "n_frames", "ci95"):
        assert again[key] == vote[key]
