"""Thresholds of a model that was trained on separate images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest

from aupipe.data import samples
from aupipe.data.splits import SplitPart
from aupipe.evaluation.predictions import Predictions
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.pipelines import train
from aupipe.pipelines.train_stage import TrainJob
from aupipe.training import recipe

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("source", "radius"), [("images:manifest", 0), ("test", 2)])
def test_smoothing_is_not_fitted_on_separate_images(
    source: str, radius: int, make_store: Callable[..., str], make_checkpoint: Callable[..., str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    store = shutil.copytree(make_store(train=4, validation=2, frames=16), tmp_path / "store")
    described = (store / "store.json").read_text().replace('"source": "test"', f'"source": "{source}"')
    (store / "store.json").write_text(described)

    def predict(paths: object, index: FaceStore, parts: Collection[SplitPart], *more: object) -> dict:
        tables = {part: samples.rows_of(index, part) for part in parts}
        return {part: [Predictions.of(rows, np.full((len(rows), 12), 0.4))] for part, rows in tables.items()}

    monkeypatch.setattr(train, "predict", predict)
    monkeypatch.setattr(train, "inference_resources", lambda job: None)
    plan = recipe.read("multilabel_transformer", quick=True, overrides=["smoothing_radii=[2,5]"])
    job = TrainJob(recipe=plan, store=str(store), out=str(tmp_path / "run"))
    card = checkpoint.load_card(make_checkpoint())
    card, result = train._calibrated(job, FaceStore.open(str(store)), "train", card)
    assert (card.smoothing.radius, card.training.thresholds_from) == (radius, "held-out train videos")
    assert result["by_step"].keys() == {"raw_at_0.5", "with_thresholds", "with_thresholds_and_smoothing"}
