"""The loop that trains a network on crops of rendered faces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from aupipe.data.augment import AugmentConfig
from aupipe.synthesis.rendered_crops import DISTORTIONS, Crops, View, distorted

_BATCH, _RATE, _WEIGHT_DECAY, _WARMUP = 32, 1e-3, 0.05, 100
_DECAY = 0.4  # share of the steps, the last ones, in which the rate falls to 0
# The weights are the mean of those after each such step of the last ones: it transfers better to real faces.
_AVERAGED_EVERY, _BATCHES_OF_STATISTICS = 500, 60
_REPORTED_EVERY = 100

# Of the input (B, 3, H, W) of a network, its points (B, P, 2) and the numbers (B,) of its crops: the terms of the loss.
Losses = Callable[[Tensor, Tensor, npt.NDArray[np.int64]], dict[str, Tensor]]


def train(
    network: nn.Module,
    crops: Crops,
    view: View,
    losses: Losses,
    *,
    steps: int,
    seed: int,
    distortions: AugmentConfig = DISTORTIONS,
    generator: torch.Generator | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Train a network to minimize the sum of the losses on distorted crops.

    Args:
        generator: of the distortions; None: one with this seed.
    """
    rng, generator = np.random.default_rng(seed), generator or torch.Generator().manual_seed(seed)
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": _WEIGHT_DECAY},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, steps))
    network.train().to(memory_format=torch.channels_last)  # takes a third less time on a CPU
    averaged = AveragedModel(network)
    order = np.zeros(0, int)
    totals: dict[str, float] = {}
    for step in range(steps):
        if len(order) < _BATCH:
            order = np.concatenate([order, rng.permutation(len(crops.images))])
        chosen, order = order[:_BATCH], order[_BATCH:]
        terms = losses(*distorted(crops, chosen, view, rng, generator, distortions), chosen)
        optimizer.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        for name, term in terms.items():
            totals[name] = totals.get(name, 0.0) + term.item() / _REPORTED_EVERY
        if (step + 1) % _REPORTED_EVERY == 0:
            report(f"step {step + 1}: loss " + ", ".join(f"{name} {total:.4f}" for name, total in totals.items()))
            totals = {}
        if step + 1 == steps or (step + 1 > (1 - _DECAY) * steps and (step + 1) % _AVERAGED_EVERY == 0):
            averaged.update_parameters(network)
    _settle(averaged, crops, view, distortions, seed=seed)
    network.load_state_dict(averaged.module.state_dict())
    network.eval()


def average(network: nn.Module, others: Sequence[nn.Module], crops: Crops, view: View, *, seed: int) -> None:
    """Replace the weights of a network by the mean of its own and those of others.

    All must have been trained further from the same weights, which may be among them. Their mean errs less than each
    of them, at the cost of one (Wortsman et al.: Model soups, 2022, arXiv 2203.05482).
    """
    averaged = AveragedModel(network)
    for each in (network, *others):
        averaged.update_parameters(each)
    _settle(averaged, crops, view, DISTORTIONS, seed=seed)
    network.load_state_dict(averaged.module.state_dict())
    network.eval()


def rate_share(step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the highest one, 0..1."""
    fallen = max(0.0, 1 - (1 - step / steps) / _DECAY)
    return min(1.0, (step + 1) / _WARMUP) * (0.5 + 0.5 * math.cos(math.pi * fallen))


def _settle(averaged: AveragedModel, crops: Crops, view: View, distortions: AugmentConfig, *, seed: int) -> None:
    """Compute the statistics of the normalization layers anew, because those of mean weights are not a mean."""
    rng, generator = np.random.default_rng([seed, 1]), torch.Generator().manual_seed(seed + 1)
    batches = (rng.integers(0, len(crops.images), _BATCH) for _ in range(_BATCHES_OF_STATISTICS))
    update_bn((distorted(crops, chosen, view, rng, generator, distortions)[0] for chosen in batches), averaged)
