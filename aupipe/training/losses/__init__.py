"""Losses: (logits or embeddings of a batch, labels with −1 = unknown) → the mean over known labels, a scalar.

Without a known label the loss is 0 with a graph. Every loss computes in float32 and is finite for logits of ±1e3.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from aupipe.config import Section
from aupipe.training.losses.au import Bce, BceCircle, BceDice, Focal, frequency_weights
from aupipe.training.losses.expression import CrossEntropy, SigmoidFocal, SoftmaxFocal
from aupipe.training.losses.identity import CosFace

Weight = Annotated[float, Field(gt=0)]
TwelveWeights = Annotated[tuple[Weight, ...], Field(min_length=12, max_length=12)]


class BceDiceConfig(Section):
    """BCE + `dice` · dice, summed over AUs with weights w_t (Tallec et al.)."""

    kind: Literal["bce_dice"] = "bce_dice"
    frequency_weighted: bool = True  # w_t ∝ 1 / positive rate; else w_t = 1
    dice: float = Field(default=0.5, ge=0)  # Weight of the dice term.


class BceConfig(Section):
    """Plain BCE, mean over AUs (Wang et al.)."""

    kind: Literal["bce"] = "bce"


class PositiveWeightedBceConfig(Section):
    """BCE with weight w_t for positives of AU t (Jin et al.)."""

    kind: Literal["positive_weighted_bce"] = "positive_weighted_bce"
    # Weight of the positives of each AU, in the order of facs.AUS.
    weights: TwelveWeights = (1, 2, 1, 1, 1, 1, 1, 6, 6, 5, 1, 5)
    mean_over: Literal["known", "all"] = "known"  # all: the divisor includes unknown entries, as in the authors' code
    smoothing: float = Field(
        default=0.0, ge=0, lt=1
    )  # probabilities as (p + s) / (1 + s); the authors' sequence stage: 0.05


class BceCircleConfig(Section):
    """BCE + multi-label circle loss (Yu et al.); hard labels only."""

    kind: Literal["bce_circle"] = "bce_circle"
    bce: float = Field(default=1.0, ge=0)  # Weight of the BCE term.
    circle: float = Field(default=1.0, ge=0)  # Weight of the circle term.


class FocalConfig(Section):
    """Sigmoid focal loss per AU (Tu et al.)."""

    kind: Literal["focal"] = "focal"
    alpha: float = Field(default=0.75, ge=0, le=1)  # weight of positives; negatives have 1 − alpha
    gamma: float = Field(default=2.0, ge=0)  # Focusing exponent; 0 is weighted BCE.


AuLossConfig = Annotated[
    BceDiceConfig | BceConfig | PositiveWeightedBceConfig | BceCircleConfig | FocalConfig, Field(discriminator="kind")
]


class CrossEntropyConfig(Section):
    """Softmax cross-entropy."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class SoftmaxFocalConfig(Section):
    """−α (1 − p_t)^γ log p_t (Jin et al.)."""

    kind: Literal["focal"] = "focal"
    alpha: float = Field(default=0.25, gt=0, le=1)  # Factor of the loss.
    gamma: float = Field(default=2.0, ge=0)  # Focusing exponent; 0 is cross entropy.


class SigmoidFocalConfig(Section):
    """Sigmoid focal loss on the one-hot vector, as in the authors' code (Jin et al.)."""

    kind: Literal["sigmoid_focal"] = "sigmoid_focal"
    alpha: float = Field(default=0.25, ge=0, le=1)  # Weight of positives; negatives have 1 − alpha.
    gamma: float = Field(default=2.0, ge=0)  # Focusing exponent.


ExprLossConfig = Annotated[CrossEntropyConfig | SoftmaxFocalConfig | SigmoidFocalConfig, Field(discriminator="kind")]


class CosFaceConfig(Section):
    """Large-margin cosine loss with Partial-FC (InsightFace's Glint360K r100 settings, except `sample_rate`)."""

    kind: Literal["cosface"] = "cosface"
    scale: float = Field(default=64.0, gt=0)  # Scale of the cosine logits.
    margin: float = Field(default=0.4, ge=0, lt=1)  # Margin that is subtracted from the target's cosine.
    sample_rate: float = Field(default=1.0, gt=0, le=1)  # share of the identities used in a training step


IdentityLossConfig = CosFaceConfig


def build_au(config: AuLossConfig, positive_rates: npt.NDArray[np.float64]) -> nn.Module:
    """Return the loss (logits (N, 12), targets (N, 12) in 0..1, −1 unknown) → scalar.

    Args:
        positive_rates: (12,) share of positives in the training rows.
    """
    match config:
        case BceDiceConfig():
            weights = frequency_weights(positive_rates) if config.frequency_weighted else np.ones(len(positive_rates))
            return BceDice(weights=weights, dice=config.dice)
        case BceConfig():
            return Bce()
        case PositiveWeightedBceConfig():
            return Bce(
                positive_weights=config.weights, mean_over=config.mean_over, smoothing=config.smoothing
            )  # fmt: skip
        case BceCircleConfig():
            return BceCircle(bce=config.bce, circle=config.circle)
        case FocalConfig():
            return Focal(alpha=config.alpha, gamma=config.gamma)


def build_expr(config: ExprLossConfig) -> nn.Module:
    """Return the loss (logits (N, C), classes (N,) int64, −1 unknown) → scalar."""
    match config:
        case CrossEntropyConfig():
            return CrossEntropy()
        case SoftmaxFocalConfig():
            return SoftmaxFocal(alpha=config.alpha, gamma=config.gamma)
        case SigmoidFocalConfig():
            return SigmoidFocal(alpha=config.alpha, gamma=config.gamma)


def build_identity(config: IdentityLossConfig, *, identities: int, width: int) -> CosFace:
    """Return the loss (embeddings (N, `width`), identities (N,) int64, −1 unknown) → scalar, with trained centers."""
    return CosFace(
        identities=identities, width=width, scale=config.scale, margin=config.margin, sample_rate=config.sample_rate
    )
