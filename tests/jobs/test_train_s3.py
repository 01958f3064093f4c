"""Training from a store on an S3 server reads few bytes more than the store has, over all ranks of a node."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aupipe.facestore.read import FaceStore
from aupipe.training import recipe, task_data, trainer
from aupipe.training.learner import build_learner
from harness.proxy import proxying
from harness.s3_server import S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.slow]  # tests/data/test_loaded.py is its short case

STORE = "s3://archive/store"
WORLD = 2
SETTINGS = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "input.size_px=32", "stages.train.batch=16",
    "stages.train.tasks.au.data.every_n=8", "stages.train.tasks.au.data.window_groups=4",
    "stages.train.tasks.au.data.held_out=0",
]  # fmt: skip


def train_epochs(rank: int) -> None:
    """Train and validate twice, as one rank; gradients are not summed over ranks, which reads nothing."""
    torch.set_num_threads(1)
    plan = recipe.read("multilabel_transformer", quick=True, overrides=SETTINGS)
    data = task_data.task_data(plan, "train", FaceStore.open(STORE))
    model, optimizer = build_learner(plan, "train", data, "random")
    one = trainer.Trainer(
        recipe=plan, stage="train", data=data, model=model, optimizer=optimizer, rank=rank, world=WORLD,
        device=torch.device("cpu"),
    )  # fmt: skip
    for epoch in range(2):
        one.train_epoch(epoch)
        one.validate()


def test_the_ranks_of_a_node_read_a_store_once(
    make_store: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make_store(train=6, validation=2, frames=400)
    size = sum(path.stat().st_size for path in Path(local).glob("split=*/*.parquet"))
    server = S3Server(tmp_path)
    try:
        server.files.put(local, "archive/store", recursive=True)
        with proxying({}) as proxy:
            changed = {"http_proxy": proxy.url, "TMPDIR": str(tmp_path)}
            for name, value in {**server.environment, **changed}.items():
                monkeypatch.setenv(name, value)
            context = multiprocessing.get_context("spawn")
            ranks = [context.Process(target=train_epochs, args=(rank,)) for rank in range(WORLD)]
            for process in ranks:
                process.start()
            for process in ranks:
                process.join()
            assert [process.exitcode for process in ranks] == [0] * WORLD
            received = proxy.received_bytes
    finally:
        server.kill()
    assert 0.8 * size < received <= 1.3 * size  # both epochs, validation and labels; the rest is the shards' footers
