"""AdamW with parameter groups, each with its own schedule. A parameter that no group names is frozen.

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
    lr: float = Field(gt=0)
    factor: float = Field(gt=0, le=1)


class Warmup(Section):
    """(B·n / 25000) · d^−½ · min(k^−½, k · w^−3/2), w = warm-up in steps (Tallec et al., published code)."""

    kind: Literal["warmup"]
    tokens: int = Field(ge=1)  # n
    width: int = Field(ge=1)  # d
    warmup_epochs: float = Field(default=2.5, gt=0)


class Cosine(Section):
    """Linear rise to `lr`, then half a cosine down to 0 at the stage's last step."""

    kind: Literal["cosine"]
    lr: float = Field(gt=0)
    warmup_epochs: float = Field(default=1.0, ge=0)


Schedule = Annotated[Exponential | Warmup | Cosine, Field(discriminator="kind")]


class ParameterGroup(Section):
    parameters: tuple[str, ...] = Field(min_length=1)  # prefixes of names, "" = all; the longest match of all decides
    schedule: Schedule
    weight_decay: float = Field(default=0.01, ge=0)


class OptimiserConfig(Section):
    groups: tuple[ParameterGroup, ...] = Field(min_length=1)
    clip_norm: float | None = Field(default=None, gt=0)  # of the whole gradient


def learning_rate(schedule: Schedule, *, step: int, steps_per_epoch: int, epochs: int, batch: int) -> float:
    """The rate of global step 0, 1, …"""
    if isinstance(schedule, Exponential):
        return schedule.lr * schedule.factor ** (step // steps_per_epoch)
    if isinstance(schedule, Warmup):
        k, warmup = step + 1, schedule.warmup_epochs * steps_per_epoch
        scale = batch * schedule.tokens / 25000 * schedule.width**-0.5
        return scale * min(k**-0.5, k * warmup**-1.5)
    warmup, total = schedule.warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return schedule.lr * (step + 1) / max(warmup, 1)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def build(system: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """The optimiser of the parameters that the groups name; `requires_grad` of all others is switched off.

    Raises:
        ConfigError: a prefix names no parameter.
    """
    members: list[list[nn.Parameter]] = [[] for _ in config.groups]
    used: set[str] = set()
    for name, parameter in system.named_parameters():
        matches = [
            (len(prefix), number, prefix)
            for number, group in enumerate(config.groups)
            for prefix in group.parameters
            if not prefix or name == prefix or name.startswith(f"{prefix}.")
        ]
        parameter.requires_grad_(bool(matches))
        if matches:
            _, number, prefix = max(matches)
            members[number].append(parameter)
            used.add(prefix)
    unknown = [prefix for group in config.groups for prefix in group.parameters if prefix not in used]
    if unknown:
        tops = sorted({".".join(name.split(".")[:2]) for name, _ in system.named_parameters()})
        raise ConfigError(f"optimiser.groups: no parameter begins with {unknown[0]!r}; there are {', '.join(tops)}")
    groups = [
        {"params": parameters, "weight_decay": group.weight_decay}
        for group, parameters in zip(config.groups, members, strict=True)
    ]
    return torch.optim.AdamW(groups, lr=0.0)


def train_mode(system: nn.Module) -> None:
    """Train mode, but modules without a trainable parameter stay in eval: no dropout, batch-norm statistics at rest."""
    system.train()
    for module in system.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
