"""Losses: (class logits (N, C), classes (N,) int64, −1 = unknown) → mean over known rows, a scalar."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aupipe.training.losses.au import TINY, focal_entries
from aupipe.training.losses.masked import at_least_float32, masked_mean


class CrossEntropy(nn.Module):
    """−log p_t."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        entries = functional.cross_entropy(at_least_float32(logits), targets.clamp(min=0), reduction="none")
        return masked_mean(entries, targets >= 0)


class SoftmaxFocal(nn.Module):
    """−α (1 − p_t)^γ log p_t: Jin et al. (ABAW2, 2021), the expression loss of the paper."""

    def __init__(self, *, alpha: float, gamma: float) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = -functional.cross_entropy(at_least_float32(logits), targets.clamp(min=0), reduction="none")
        missed = -torch.expm1(log_p)  # 1 − p_t without cancellation
        return masked_mean(-self.alpha * missed.clamp(min=TINY).pow(self.gamma) * log_p, targets >= 0)


class SigmoidFocal(nn.Module):
    """Sigmoid focal loss of every class against the one-hot vector, as in the code of Jin et al. (ABAW2, 2021)."""

    def __init__(self, *, alpha: float, gamma: float) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = at_least_float32(logits)
        y = functional.one_hot(targets.clamp(min=0), logits.shape[-1]).to(logits.dtype)
        rows = focal_entries(logits, y, self.alpha, self.gamma).mean(dim=-1)
        return masked_mean(rows, targets >= 0)
