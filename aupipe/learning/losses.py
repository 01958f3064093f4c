"""Losses over AU logits (B, 12) and targets (B, 12) in 0..1, where −1 is unknown and has no part.

Frequency-weighted BCE and dice after Tallec et al. (ABAW3, 2022) and the authors' published code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from aupipe.config import Section

Loss = Callable[[Tensor, Tensor], Tensor]


class LossConfig(Section):
    """BCE + `dice` · dice, both summed over AUs with weights w_t and averaged over the batch."""

    kind: Literal["bce_dice"] = "bce_dice"
    frequency_weighted: bool = True  # w_t ∝ 1 / positive rate; else w_t = 1
    dice: float = Field(default=0.5, ge=0)


def build(config: LossConfig, positive_rates: npt.NDArray[np.float64]) -> Loss:
    """The loss that `config` describes. `positive_rates` (12,) are those of the rows learnt from, above 0."""
    rates = torch.from_numpy(positive_rates)
    weights = (frequency_weights(rates) if config.frequency_weighted else torch.ones_like(rates)).float()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        w = weights.to(logits.device)
        total = weighted_bce(logits, targets, w)
        return total + config.dice * weighted_dice(logits, targets, w) if config.dice else total

    return loss


def frequency_weights(positive_rates: Tensor) -> Tensor:
    """w_t = T · (1/f_t) / Σ_u (1/f_u); their mean is 1."""
    inverse = 1 / positive_rates
    return inverse / inverse.mean()


def weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """mean_b Σ_t w_t BCE(z, y): Tallec et al. eq. 9-10, weighted."""
    entries = functional.binary_cross_entropy_with_logits(logits, targets.clamp(min=0), reduction="none")
    return _reduce(entries, targets, weights)


def weighted_dice(logits: Tensor, targets: Tensor, weights: Tensor, epsilon: float = 1.0) -> Tensor:
    """mean_b Σ_t w_t [1 − (2yp + ε) / (y² + p² + ε)]."""
    p, y = logits.sigmoid(), targets.clamp(min=0)
    entries = 1 - (2 * y * p + epsilon) / (y.square() + p.square() + epsilon)
    return _reduce(entries, targets, weights)


def _reduce(entries: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    # `where` rather than a product: an infinite entry that is masked must not become NaN.
    known = torch.where(targets >= 0, entries, torch.zeros_like(entries))
    return (known * weights).sum(dim=-1).mean()
