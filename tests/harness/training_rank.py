"""Training as one rank of several, in a process of its own and without Ray."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

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


def resume(rank: int, world: int, meeting: str) -> None:
    """Train four steps under DDP, and again from the state after the second; fail if the weights differ in a bit.

    Args:
        meeting: a file that does not exist, by which the ranks find each other.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)

    def train(state: tuple[dict[str, Any], dict[str, Any]] | None, first: int, last: int) -> Any:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 700), nn.ReLU(), nn.Linear(700, 500), nn.ReLU(), nn.Linear(500, 12))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        if state is not None:
            model.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        options = trainer.ddp_options(unused=False, device=torch.device("cpu"), world=world)
        wrapped = DistributedDataParallel(model, **options)
        for step in range(first, last):
            draw = torch.Generator().manual_seed(world * step + rank)
            optimizer.zero_grad(set_to_none=True)
            wrapped(torch.randn(8, 16, generator=draw)).square().mean().backward()
            optimizer.step()
        return copy.deepcopy((model.state_dict(), optimizer.state_dict()))

    whole, resumed = train(None, 0, 4), train(train(None, 0, 2), 2, 4)
    distributed.destroy_process_group()
    assert all(torch.equal(tensor, resumed[0][name]) for name, tensor in whole[0].items())
