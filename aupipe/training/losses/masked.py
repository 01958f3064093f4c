"""Means over what is known, for labels of which some are −1."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(entries: Tensor, known: Tensor) -> Tensor:
    """Mean of `entries` where `known` (the same shape, bool) is true; 0, with a graph, where nothing is known."""
    # `where` rather than a product: an infinite entry that is masked must not become NaN.
    return torch.where(known, entries, torch.zeros_like(entries)).sum() / known.sum().clamp(min=1)


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32 at least: under mixed precision logits arrive in 16 bits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
