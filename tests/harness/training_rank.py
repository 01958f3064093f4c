"""Training as one rank of several, in a process of its own, without Ray and without the other ranks' gradients."""

from __future__ import annotations

import torch

from aupipe.facestore.read import FaceStore
from aupipe.training import recipe, task_data, trainer
from aupipe.training.learner import build_learner

SETTINGS = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "input.size_px=32", "stages.train.batch=16",
    "stages.train.tasks.au.data.every_n=8", "stages.train.tasks.au.data.window_groups=4",
    "stages.train.tasks.au.data.held_out=0",
]  # fmt: skip


def train_epochs(rank: int, world: int, store: str) -> None:
    """Train and validate twice. Gradients are not summed over ranks, which would read nothing."""
    torch.set_num_threads(1)
    plan = recipe.read("multilabel_transformer", quick=True, overrides=SETTINGS)
    data = task_data.task_data(plan, "train", FaceStore.open(store))
    model, optimizer = build_learner(plan, "train", data, "random")
    one = trainer.Trainer(
        recipe=plan, stage="train", data=data, model=model, optimizer=optimizer, rank=rank, world=world,
        device=torch.device("cpu"),
    )  # fmt: skip
    for epoch in range(2):
        one.train_epoch(epoch)
        one.validate()
