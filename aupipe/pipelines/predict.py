"""Prediction over a face store as a Ray Data job: row groups in, probabilities out, on a pool of model workers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.data

from aupipe import facs
from aupipe.config import Resources
from aupipe.errors import DatasetError
from aupipe.facestore.read import RowGroup, StoreIndex
from aupipe.learning.ensemble import Member
from aupipe.learning.predictions import Predictions
from aupipe.learning.splits import Part
from aupipe.models import checkpoint
from aupipe.pipelines.session import gpus_per_worker

GROUPS_PER_CALL = 4


def predict(
    checkpoints: Sequence[str], index: StoreIndex, parts: Collection[Part], resources: Resources
) -> dict[Part, list[Predictions]]:
    """What each model says of every row of each part, labelled or not. Runs inside a session.

    Raises:
        DatasetError: there are no rows.
    """
    groups = list(dict.fromkeys(group for part in parts for group in part.row_groups(index)))
    if not groups:
        raise DatasetError(f"{index.storage.root}: nothing to predict; the split is empty")
    gpus = gpus_per_worker(resources)
    slots = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1))
    calls = -(-len(groups) // GROUPS_PER_CALL)
    data = ray.data.from_items([{"group": number} for number in range(len(groups))])
    data = data.map_batches(
        _Predictor,
        fn_constructor_args=(list(checkpoints), index, groups, bool(gpus)),
        batch_size=GROUPS_PER_CALL,
        compute=ray.data.ActorPoolStrategy(size=max(min(slots, calls), 1)),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
    )
    shape = (len(checkpoints), -1, len(facs.AUS))
    found = {
        groups[int(row["group"])]: np.frombuffer(row["probabilities"], dtype=np.float32).reshape(shape)
        for row in data.iter_rows()
    }
    return {part: _of_part(index, part, found) for part in parts}


def member(card: checkpoint.Card, raw: Predictions) -> Member:
    """Its predictions with its own thresholds and smoothing."""
    return Member(raw, np.array([card.thresholds[au] for au in facs.AUS]), card.smoothing.radius)


def _of_part(index: StoreIndex, part: Part, found: dict[RowGroup, np.ndarray]) -> list[Predictions]:
    """Of each model; `found` has (models, rows, 12) of each row group."""
    groups = part.row_groups(index)  # in row order
    rows = np.concatenate([group.start + np.arange(group.rows) for group in groups])
    table = index.labels(part.pool).take(rows)
    models = np.concatenate([found[group] for group in groups], axis=1)
    predictions = [Predictions.of(table, probabilities) for probabilities in models]
    return predictions if part.videos is None else [one.of_videos(part.videos) for one in predictions]


class _Predictor:
    """Holds the models on one worker."""

    def __init__(self, checkpoints: list[str], index: StoreIndex, groups: list[RowGroup], gpu: bool) -> None:
        import cv2
        import torch

        from aupipe.learning.crops import CropReader
        from aupipe.learning.engine import predict

        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        device = torch.device("cuda" if gpu else "cpu")
        loaded = [checkpoint.load(folder) for folder in checkpoints]
        self._groups = groups
        self._readers = {s: CropReader(index, s, keep_groups=1) for s in {group.split for group in groups}}
        self._models = [partial(predict, system.to(device), card.input, device=device) for system, card in loaded]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = []
        for number in batch["group"]:
            group = self._groups[number]
            rows = group.start + np.arange(group.rows)
            each = [model(reader=self._readers[group.split], rows=rows) for model in self._models]
            results.append(np.stack(each).astype(np.float32).tobytes())
        return {"group": batch["group"], "probabilities": results}
