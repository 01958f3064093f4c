"""Means over known entries, for labels of which some are unknown (−1)."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(entries: Tensor, known: Tensor) -> Tensor:
    """Return the mean of `entries` over `known` (same shape, bool); 0 with a graph if nothing is known."""
    # `where` is used instead of a product, because a masked infinite entry must not become NaN.
    return torch.where(known, entries, torch.zeros_like(entries)).sum() / known.sum().clamp(min=1)


def at_least_float32(values: Tensor) -> Tensor:
    """Return `values` in at least float32, because under mixed precision logits have 16 bits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
