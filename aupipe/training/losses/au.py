"""Losses: (AU logits (N, 12), targets (N, 12) in 0..1, −1 = unknown) → scalar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from aupipe.errors import ConfigError, DatasetError
from aupipe.training.losses.masked import at_least_float32, masked_mean

TINY = 1e-12  # (1 − p_t)^γ is constant below it, because for γ < 1 its slope at 0 is infinite


class BceDice(nn.Module):
    """BCE + `dice` · dice, each Σ_t w_t (…) over AUs, then the mean over rows with a known AU.

    Tallec et al.: Multi-label Transformer for Action Unit Detection (ABAW3, 2022), eq. 9-10, and the authors' code.
    """

    weights: Tensor

    def __init__(self, *, weights: npt.NDArray[np.float64], dice: float) -> None:
        """
        Args:
            weights: w_t (12,), see `frequency_weights`.
        """
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)
        self.dice = dice

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits, known = at_least_float32(logits), targets >= 0
        y = targets.to(logits.dtype).clamp(min=0)
        entries = functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        if self.dice:
            entries = entries + self.dice * dice_entries(logits.sigmoid(), y)
        rows = torch.where(known, entries * self.weights, torch.zeros_like(entries)).sum(dim=-1)
        return masked_mean(rows, known.any(dim=-1))


def frequency_weights(positive_rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return w_t = T · (1/f_t) / Σ_u (1/f_u) for the T rates f_t above 0; their mean is 1. A rate of 0 has weight 0.

    Raises:
        DatasetError: no rate is above 0.
    """
    found = positive_rates > 0
    if not found.any():
        raise DatasetError("no training row is positive for any AU; fix: train on rows with positive AUs")
    inverse = np.divide(1, positive_rates, out=np.zeros_like(positive_rates), where=found)
    return inverse / inverse[found].mean()


def dice_entries(p: Tensor, y: Tensor, epsilon: float = 1.0) -> Tensor:
    """Return 1 − (2yp + ε) / (y² + p² + ε) of each entry."""
    return 1 - (2 * y * p + epsilon) / (y.square() + p.square() + epsilon)


class Bce(nn.Module):
    """Mean binary cross-entropy over known entries; positives of AU t have weight w_t (`positive_weights`).

    Without weights: Wang, Chang, Wang: Facial Action Unit Recognition Based on Transfer Learning (ABAW3, 2022), eq. 2.
    With them: Jin et al.: A Multi-modal and Multi-task Learning Method for Action Unit and Expression Recognition
    (ABAW2, 2021). Their code divides by all entries, including unknown ones (`mean_over="all"`), and in its sequence
    stage smooths probabilities to (p + s) / (1 + s) and (1 − p + s) / (1 + s) with s = 0.05 (`smoothing`).
    """

    weights: Tensor

    def __init__(
        self, *, positive_weights: Sequence[float] | None = None, mean_over: Literal["known", "all"] = "known",
        smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("weights", torch.tensor(positive_weights or 1.0, dtype=torch.float32), persistent=False)
        self.mean_over, self.smoothing = mean_over, smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits, known = at_least_float32(logits), targets >= 0
        y = targets.to(logits.dtype).clamp(min=0)
        entries = -(self.weights * y * self._log(logits) + (1 - y) * self._log(-logits))
        mean = masked_mean(entries, known)
        return mean * known.float().mean() if self.mean_over == "all" and known.numel() else mean

    def _log(self, logits: Tensor) -> Tensor:
        if not self.smoothing:
            return functional.logsigmoid(logits)
        return (logits.sigmoid() + self.smoothing).log() - math.log1p(self.smoothing)


class BceCircle(nn.Module):
    """`bce` · BCE (mean over known entries) + `circle` · multi-label "circle" loss (mean over rows with a known AU).

    log(1 + Σ_neg e^s) + log(1 + Σ_pos e^−s): Yu et al.: Local Region Perception and Relationship Learning Combined with
    Feature Fusion for Facial Action Unit Detection (ABAW5, 2023); the term is Su's ZLPR (2022). Both terms have the
    decision boundary s = 0.
    """

    def __init__(self, *, bce: float, circle: float) -> None:
        super().__init__()
        self.entries = Bce()
        self.bce, self.circle = bce, circle

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss.

        Raises:
            ConfigError: a target is between 0 and 1, but every AU must be either positive or negative.
        """
        if ((targets > 0) & (targets < 1)).any():
            raise ConfigError(
                "loss kind bce_circle needs labels 0 and 1; switch off mixup and label smoothing (augment)"
            )
        logits = at_least_float32(logits)
        rows = log1p_sum_exp(logits, targets == 0) + log1p_sum_exp(-logits, targets == 1)
        return self.bce * self.entries(logits, targets) + self.circle * masked_mean(rows, (targets >= 0).any(dim=-1))


def log1p_sum_exp(scores: Tensor, chosen: Tensor) -> Tensor:
    """Return log(1 + Σ e^score) over the chosen scores of each row, (N, T) → (N,), without overflow."""
    left = scores.masked_fill(~chosen, -math.inf)
    return torch.cat([left, left.new_zeros(len(left), 1)], dim=-1).logsumexp(dim=-1)


class Focal(nn.Module):
    """Mean over known entries of α_t (1 − p_t)^γ BCE, where p_t = p y + (1 − p)(1 − y) and α_t = α y + (1 − α)(1 − y).

    Lin et al.: Focal Loss for Dense Object Detection (ICCV 2017), eq. 5, with a sigmoid for each AU as in Tu et al.:
    Prompt Tuning for Facial Action Unit Detection in the Wild (2023); `alpha` is the weight of positives.
    """

    def __init__(self, *, alpha: float, gamma: float) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = at_least_float32(logits)
        y = targets.to(logits.dtype).clamp(min=0)
        return masked_mean(focal_entries(logits, y, self.alpha, self.gamma), targets >= 0)


def focal_entries(logits: Tensor, y: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return the focal loss of each entry."""
    missed = (1 - y) * logits.sigmoid() + y * (-logits).sigmoid()  # 1 − p_t
    weights = alpha * y + (1 - alpha) * (1 - y)
    entries = functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return weights * missed.clamp(min=TINY).pow(gamma) * entries
