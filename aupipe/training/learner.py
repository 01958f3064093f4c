"""The trained module of a stage: a system with the losses of its tasks, and its optimizer."""

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
from aupipe.models.interfaces import LogitsHead, SequenceBatch, System
from aupipe.models.sliding_window import outputs
from aupipe.training import losses, optim
from aupipe.training.pretrained import check_frozen, load_pretrained
from aupipe.training.recipe import AuTask, ExprTask, IdentityTask, Recipe
from aupipe.training.task_data import TaskData


class Learner(nn.Module):
    """A system and the losses of a stage's tasks; parameters of the losses are trained as well.

    Attributes:
        encoder, head: the parts of the system.
        loss: task → module.
    """

    def __init__(self, system: System, loss: Mapping[Task, nn.Module]) -> None:
        super().__init__()
        self.encoder, self.head = system.encoder, system.head
        self.loss = nn.ModuleDict({str(task): module for task, module in loss.items()})

    @property
    def system(self) -> System:
        """The model without its losses."""
        return System(encoder=self.encoder, head=self.head)

    def forward(self, task: Task, batch: SequenceBatch, targets: Tensor) -> Tensor:
        """Return the loss of a task.

        Args:
            batch: normalized frames, or embeddings if the encoder is frozen.
            targets: (B, S, 12) for au, otherwise (B, S); −1 unknown.
        """
        batch = batch if batch.features.ndim == 3 else batch.encoded(self.encoder)
        found = batch.features if task == "identity" else self.head(batch)[task]
        with torch.autocast(found.device.type, enabled=False):
            loss: Tensor = self.loss[task](found.flatten(0, 1).float(), targets.flatten(0, 1))
        return loss


def build_learner(
    recipe: Recipe, stage: str, data: Mapping[Task, TaskData], init: str | None
) -> tuple[Learner, torch.optim.Optimizer]:
    """Return the learner at the start of a stage, and its optimizer.

    Args:
        init: name of the initial weights; None: the caller loads them.

    Raises:
        ConfigError: the weights do not fit, frozen parameters would stay random, or the encoder must be frozen and is
            not.
    """
    torch.manual_seed(sampler.seed_of(recipe.seed, stage, "weights"))
    system = build(recipe.model_of(stage), recipe.input)
    named = recipe.stages[stage].tasks.named
    if len(named) > 1 and isinstance(system.head, LogitsHead):
        # The logits are one tensor, so the loss of one task gives the other task's logits gradients of 0 instead of
        # none, and momentum would move them.
        raise ConfigError(
            f"stages.{stage}.tasks: the encoder of {recipe.model_of(stage).name} is cut after its logits, so "
            "training one task would change the other; train one task per stage, or use the model multimodal"
        )
    untrained = [name for name in outputs(system.head, system.encoder.embed_dim) if name not in named]
    if untrained and "identity" not in named:
        raise ConfigError(
            f"stages.{stage}: no task trains the output {untrained[0]}, which would stay random; leave it out with "
            f"--set stages.{stage}.model.outputs=[{', '.join(named)}]"
        )
    learner = Learner(system, {name: _loss(task, data[name].train, system) for name, task in named.items()})
    optimizer = optim.build(learner, recipe.stages[stage].optimizer)
    if recipe.stages[stage].encode_once and not is_frozen(system.encoder):
        raise ConfigError(
            f"stages.{stage}.encode_once: the encoder is trained in this stage, so its embeddings change; leave out "
            "encode_once, or name only parameters of the head in optimizer.groups"
        )
    if init is not None:
        setting = f"stages.{stage}.init"
        check_frozen(learner, load_pretrained(system, init, setting=setting), setting=setting)
    return learner, optimizer


def least_clips(learner: Learner, recipe: Recipe, stage: str) -> int:
    """Return the number of clips that a part of a batch needs: 2 if torch refuses the batch-norm statistics of one.

    Args:
        learner: as from `build_learner`; its weights are lost.
    """
    if min(task.data.clip_frames for task in recipe.stages[stage].tasks.named.values()) > 1:
        return 1
    optim.train_mode(learner.to_empty(device="cpu"))
    frame = torch.zeros(1, 1, 3, recipe.input.size_px, recipe.input.size_px)
    try:
        with torch.no_grad():
            learner.system(SequenceBatch.untimed(frame))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return 2
    return 1


def _loss(task: AuTask | ExprTask | IdentityTask, samples: Samples, system: System) -> nn.Module:
    if isinstance(task, AuTask):
        return losses.build_au(task.loss, samples.positive_rates)
    if isinstance(task, ExprTask):
        return losses.build_expr(task.loss)
    return losses.build_identity(task.loss, identities=samples.classes, width=system.encoder.embed_dim)


def unwrap(model: nn.Module) -> Learner:
    """Return the learner inside a DDP wrapper, or the model itself."""
    learner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(learner, Learner)
    return learner
