"""What a stage learns: a system with the losses of its tasks, and the optimizer that goes with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aupipe.data import sampler
from aupipe.data.batches import is_frozen
from aupipe.data.sampler import Task
from aupipe.data.samples import Samples
from aupipe.errors import ConfigError
from aupipe.models.build import build
from aupipe.models.interfaces import LogitsHead, System
from aupipe.models.sliding_window import outputs
from aupipe.training import losses, optim
from aupipe.training.pretrained import check_learnt, load_pretrained
from aupipe.training.recipe import AuTask, ExprTask, IdentityTask, Recipe
from aupipe.training.task_data import TaskData


class Learner(nn.Module):
    """A system and the losses of a stage's tasks, whose parameters, if they have any, are learnt along with it.

    Attributes:
        encoder, head: the system's.
        loss: task → module.
    """

    def __init__(self, system: System, loss: Mapping[Task, nn.Module]) -> None:
        super().__init__()
        self.encoder, self.head = system.encoder, system.head
        self.loss = nn.ModuleDict({str(task): module for task, module in loss.items()})

    @property
    def system(self) -> System:
        return System(encoder=self.encoder, head=self.head)

    def forward(
        self, task: Task, seen: Tensor, targets: Tensor, mask: Tensor, time: Tensor, mel: Tensor | None = None,
        column: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The loss of a task.

        Args:
            seen: frames (B, S, 3, H, W), normalized; of a frozen encoder what it made of them, (B, S, E).
            targets: (B, S, 12) for au, else (B, S); −1 unknown.
            mask, time, mel, column: as in `SequenceHead`.
        """
        features = seen if seen.ndim == 3 else self.encoder(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        found = features if task == "identity" else self.head(features, mask, time, mel, column)[task]
        with torch.autocast(found.device.type, enabled=False):
            loss: Tensor = self.loss[task](found.flatten(0, 1).float(), targets.flatten(0, 1))
        return loss


def build_learner(
    recipe: Recipe, stage: str, data: Mapping[Task, TaskData], init: str | None
) -> tuple[Learner, torch.optim.Optimizer]:
    """The system as the stage starts it, with its losses, and the optimizer.

    Args:
        init: names the weights; None: they will be put in by the caller.

    Raises:
        ConfigError: weights that do not fit, frozen parameters that come from nowhere, or an encoder that shall be
            frozen and is not.
    """
    torch.manual_seed(sampler.seed_of(recipe.seed, stage, "weights"))
    system = build(recipe.model_of(stage), recipe.input)
    named = recipe.stages[stage].tasks.named
    if len(named) > 1 and isinstance(system.head, LogitsHead):
        # Its logits are one tensor: the loss of some gives the others gradients of 0, not none, so momentum moves them.
        raise ConfigError(
            f"stages.{stage}.tasks: the encoder of {recipe.model_of(stage).name} is cut after its logits, so it cannot "
            "learn one task and leave the other's head alone; learn one task a stage, or take the model multimodal"
        )
    untaught = [name for name in outputs(system.head, system.encoder.embed_dim) if name not in named]
    if untaught and "identity" not in named:
        raise ConfigError(
            f"stages.{stage}: no task teaches the output {untaught[0]}, which would stay random; leave it out with "
            f"--set stages.{stage}.model.outputs=[{', '.join(named)}]"
        )
    learner = Learner(system, {name: _loss(task, data[name].train, system) for name, task in named.items()})
    optimizer = optim.build(learner, recipe.stages[stage].optimizer)
    if recipe.stages[stage].encode_once and not is_frozen(system.encoder):
        raise ConfigError(
            f"stages.{stage}.encode_once: the encoder learns in this stage, so what it makes of a crop changes; leave "
            "encode_once out, or let optimizer.groups name parameters of the head alone"
        )
    if init is not None:
        setting = f"stages.{stage}.init"
        check_learnt(learner, load_pretrained(system, init, setting=setting), setting=setting)
    return learner, optimizer


def _loss(task: AuTask | ExprTask | IdentityTask, learnt: Samples, system: System) -> nn.Module:
    if isinstance(task, AuTask):
        return losses.build_au(task.loss, learnt.positive_rates)
    if isinstance(task, ExprTask):
        return losses.build_expr(task.loss)
    return losses.build_identity(task.loss, identities=learnt.classes, width=system.encoder.embed_dim)


def unwrap(model: nn.Module) -> Learner:
    """The learner inside DDP's wrapper, or the model itself."""
    learner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(learner, Learner)
    return learner
