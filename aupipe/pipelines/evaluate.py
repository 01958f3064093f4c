"""Prediction over a face store as a Ray Data job: row groups in, probabilities out, on a pool of model workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.data

from aupipe import facs
from aupipe.config import Resources, Section
from aupipe.errors import DatasetError
from aupipe.facestore.read import RowGroup, StoreIndex
from aupipe.learning import scores
from aupipe.learning.predictions import Predictions
from aupipe.models import checkpoint
from aupipe.pipelines.session import gpus_per_worker, session
from aupipe.storage import Storage

GROUPS_PER_CALL = 4


class EvaluateConfig(Section):
    """Everything that `evaluate.py --set` takes."""

    resources: Resources = Resources()


@dataclass(frozen=True)
class EvaluateJob:
    checkpoint: str
    store: str
    split: str
    out: str
    config: EvaluateConfig


def describe(job: EvaluateJob) -> str:
    """The plan. Starts nothing."""
    card = checkpoint.load_card(job.checkpoint)
    rows = StoreIndex.open(job.store).rows(job.split)
    done = " (done before; would be written again)" if Storage(job.out).exists("scores.json") else ""
    return f"score {card.training.recipe or 'model'} {card.sha256[:12]} on {rows:,} crops of {job.split}{done}"


def evaluate(job: EvaluateJob) -> str:
    """Score a checkpoint on a split; writes scores.json and predictions.parquet. Returns the table to print.

    Raises:
        CheckpointError, DatasetError: of what is missing.
    """
    card = checkpoint.load_card(job.checkpoint)
    index = StoreIndex.open(job.store)
    groups = index.row_groups(job.split)
    with session():
        raw = predict(job.checkpoint, index, groups, job.config.resources)[job.split]
    thresholds = np.array([card.thresholds[au] for au in facs.AUS])
    result, text = scores.table(raw, card.smoothing.radius, thresholds)
    result |= {
        "expression": None,  # no system with an expression head yet
        "split": job.split,
        "thresholds_from": card.training.thresholds_from,
        "smoothing_radius": card.smoothing.radius,
        "model_sha256": card.sha256,
        "store": job.store,
        "command": " ".join(sys.argv),
    }
    out = Storage(job.out)
    smoothed = raw.smoothed(card.smoothing.radius)
    out.write("predictions.parquet", smoothed.to_parquet(smoothed.probabilities >= thresholds))
    out.write("scores.json", json.dumps(result, indent=1).encode())
    return text


def predict(
    checkpoint_folder: str, index: StoreIndex, groups: Sequence[RowGroup], resources: Resources
) -> dict[str, Predictions]:
    """The probabilities of every row of `groups`, by split. Runs inside a session.

    Raises:
        DatasetError: there are no rows.
    """
    if not groups:
        raise DatasetError(f"{index.storage.root}: nothing to predict; the split is empty")
    gpus = gpus_per_worker(resources)
    slots = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1))
    calls = -(-len(groups) // GROUPS_PER_CALL)
    data = ray.data.from_items([{"group": number} for number in range(len(groups))])
    data = data.map_batches(
        _Predictor,
        fn_constructor_args=(checkpoint_folder, index, list(groups), bool(gpus)),
        batch_size=GROUPS_PER_CALL,
        compute=ray.data.ActorPoolStrategy(size=max(min(slots, calls), 1)),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
    )
    found = {int(row["group"]): row for row in data.iter_rows()}
    result: dict[str, Predictions] = {}
    for split in dict.fromkeys(group.split for group in groups):
        mine = sorted((n for n, group in enumerate(groups) if group.split == split), key=lambda n: groups[n].start)
        rows = np.concatenate([groups[n].start + np.arange(groups[n].rows) for n in mine])
        probabilities = np.concatenate([_matrix(found[n]["probabilities"]) for n in mine])
        result[split] = Predictions.of(index.labels(split).take(rows), probabilities)
    return result


class _Predictor:
    """Holds the model on one worker."""

    def __init__(self, checkpoint_folder: str, index: StoreIndex, groups: list[RowGroup], gpu: bool) -> None:
        import cv2
        import torch

        from aupipe.learning.crops import CropReader
        from aupipe.learning.engine import predict

        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        device = torch.device("cuda" if gpu else "cpu")
        system, card = checkpoint.load(checkpoint_folder)
        self._groups = groups
        self._readers = {s: CropReader(index, s, keep_groups=1) for s in {group.split for group in groups}}
        self._predict = partial(predict, system.to(device), card.input, device=device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = []
        for number in batch["group"]:
            group = self._groups[number]
            rows = group.start + np.arange(group.rows)
            results.append(self._predict(reader=self._readers[group.split], rows=rows).astype(np.float32).tobytes())
        return {"group": batch["group"], "probabilities": results}


def _matrix(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.float32).reshape(-1, len(facs.AUS))
