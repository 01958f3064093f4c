"""Boundary sizes for code that works in batches."""

from __future__ import annotations


def sizes(batch: int) -> list[int]:
    """Return the distinct values of 0, 1, n − 1, n, n + 1 and 2n for batches of n."""
    return sorted({0, 1, batch - 1, batch, batch + 1, 2 * batch})


def batches(count: int, batch: int) -> list[int]:
    """Return the sizes of the batches of `count` items: only the last may be smaller, and none is empty."""
    return [min(batch, count - first) for first in range(0, count, batch)]
