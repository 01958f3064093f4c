"""Optimizers with parameter groups, each with its own schedule. A parameter in no group is frozen.

In TensorFlow Addons' AdamW, which Tallec et al. used, the decay is not multiplied by the learning rate; with their
decay = learning rate, PyTorch's AdamW needs weight_decay = 1 under the same schedule.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from aupipe.config import Section
from aupipe.errors import ConfigError


class Exponential(Section):
    """lr · factor^epoch."""

    kind: Literal["exponential"]
    lr: float = Field(gt=0)  # Learning rate of the first epoch.
    factor: float = Field(gt=0, le=1)  # Factor per epoch.


class Warmup(Section):
    """(B·n / 25000) · d^−½ · min(k^−½, k · w^−3/2), w = warm-up in steps (Tallec et al., published code)."""

    kind: Literal["warmup"]
    tokens: int = Field(ge=1)  # n
    width: int = Field(ge=1)  # d
    warmup_epochs: float = Field(default=2.5, gt=0)  # Length of the rise.


class Cosine(Section):
    """Linear rise to `lr`, then half a cosine down to 0 at the stage's last step."""

    kind: Literal["cosine"]
    lr: float = Field(gt=0)  # Highest learning rate.
    warmup_epochs: float = Field(default=1.0, ge=0)  # Length of the linear rise.


class Milestones(Section):
    """`lr`, multiplied by `factor` at each of these epochs (counted from 0)."""

    kind: Literal["milestones"]
    lr: float = Field(gt=0)  # Learning rate of the first epoch.
    epochs: tuple[int, ...] = ()  # Epochs at which the rate is multiplied.
    factor: float = Field(default=0.1, gt=0, le=1)  # Factor at each milestone.


class Restarts(Section):
    """Repeated cosines from `lr` to lowest · `lr`, times `factor` from `drop_epoch` on (code of Tu et al.'s lab)."""

    kind: Literal["restarts"]
    lr: float = Field(gt=0)  # Learning rate at the start of each cosine.
    period_epochs: int = Field(default=4, ge=1)  # Length of each cosine.
    lowest: float = Field(default=0.1, ge=0, le=1)  # End of each cosine as a fraction of lr.
    drop_epoch: int = Field(default=16, ge=1)  # Epoch from which all rates are multiplied by factor.
    factor: float = Field(default=0.1, gt=0, le=1)  # Factor from drop_epoch on.


class Polynomial(Section):
    """lr · (1 − step / steps)^power, which is 0 after the stage's last step (InsightFace's identity training)."""

    kind: Literal["polynomial"]
    lr: float = Field(gt=0)  # Learning rate of the first step.
    power: float = Field(default=2, gt=0)  # Exponent of the decay.


Schedule = Annotated[Exponential | Warmup | Cosine | Milestones | Restarts | Polynomial, Field(discriminator="kind")]


class ParameterGroup(Section):
    """Parameters with a common schedule and weight decay."""

    parameters: tuple[str, ...] = Field(min_length=1)  # prefixes of names, "" = all; the longest match over all groups
    schedule: Schedule
    weight_decay: float = Field(default=0.01, ge=0)  # Decoupled (adamw) or L2 (sgd) weight decay.
    decay_norms: bool = True  # false: no decay on batch and layer norms


class OptimizerConfig(Section):
    """The optimizer of a stage."""

    kind: Literal["adamw", "sgd"] = "adamw"  # Optimizer.
    momentum: float = Field(default=0.9, ge=0, lt=1)  # for sgd; no Nesterov
    # Parameter groups with their schedules; --set replaces the whole list.
    groups: tuple[ParameterGroup, ...] = Field(min_length=1)
    clip_norm: float | None = Field(default=None, gt=0)  # of the network's gradient


def learning_rate(schedule: Schedule, *, step: int, steps_per_epoch: int, epochs: int, batch: int) -> float:
    """Return the learning rate at global step 0, 1, …"""
    epoch, total = step // steps_per_epoch, epochs * steps_per_epoch
    if isinstance(schedule, Exponential):
        return schedule.lr * schedule.factor**epoch
    if isinstance(schedule, Milestones):
        return schedule.lr * schedule.factor ** sum(epoch >= milestone for milestone in schedule.epochs)
    if isinstance(schedule, Polynomial):
        return schedule.lr * (1 - step / total) ** schedule.power
    if isinstance(schedule, Restarts):
        part = step / steps_per_epoch % schedule.period_epochs / schedule.period_epochs
        share = schedule.lowest + (1 - schedule.lowest) * 0.5 * (1 + math.cos(math.pi * part))
        return schedule.lr * share * (schedule.factor if epoch >= schedule.drop_epoch else 1)
    if isinstance(schedule, Warmup):
        k, warmup = step + 1, schedule.warmup_epochs * steps_per_epoch
        scale = batch * schedule.tokens / 25000 * schedule.width**-0.5
        return scale * min(k**-0.5, k * warmup**-1.5)
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return schedule.lr * min((step + 1) / warmup, 1)  # a rise of 1.5 steps would end at 1.33 · lr
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def build(learner: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of the parameters in the groups; all other parameters get `requires_grad=False`.

    Each configured group becomes one optimizer group, or two without `decay_norms`, because norms then need a group of
    their own. The key `number` is the index in `config.groups`.

    Raises:
        ConfigError: a prefix matches no parameter.
    """
    members: list[list[tuple[str, nn.Parameter]]] = [[] for _ in config.groups]
    used: set[str] = set()
    for name, parameter in learner.named_parameters():
        matches = [
            (len(prefix), number, prefix)
            for number, group in enumerate(config.groups)
            for prefix in group.parameters
            if not prefix or name == prefix or name.startswith(f"{prefix}.")
        ]
        parameter.requires_grad_(bool(matches))
        if matches:
            _, number, prefix = max(matches)
            members[number].append((name, parameter))
            used.add(prefix)
    unknown = [prefix for group in config.groups for prefix in group.parameters if prefix not in used]
    if unknown:
        tops = sorted({".".join(name.split(".")[:2]) for name, _ in learner.named_parameters()})
        raise ConfigError(f"optimizer.groups: no parameter begins with {unknown[0]!r}; allowed are {', '.join(tops)}")
    norms = _norms(learner)
    groups = []
    for number, (group, named) in enumerate(zip(config.groups, members, strict=True)):
        decayed = [parameter for name, parameter in named if group.decay_norms or name not in norms]
        others = [parameter for name, parameter in named if not group.decay_norms and name in norms]
        for parameters, decay in ((decayed, group.weight_decay), (others, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "number": number})
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=0.0)


def _norms(learner: nn.Module) -> set[str]:
    """Return the names of the parameters of normalization layers."""
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    return {
        f"{name}.{inner}" if name else inner
        for name, module in learner.named_modules()
        if isinstance(module, kinds)
        for inner, _ in module.named_parameters(recurse=False)
    }


def train_mode(system: nn.Module) -> None:
    """Set train mode, but eval mode for frozen modules: no dropout, and batch-norm statistics do not change."""
    system.train()
    for module in system.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
