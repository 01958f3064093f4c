"""Smoothing of probabilities over time."""

from __future__ import annotations

import numpy as np


def box_mean(values: np.ndarray, valid: np.ndarray, radius: int) -> np.ndarray:
    """(N, K) mean over up to `radius` valid neighbours on each side; the window shrinks at the ends.

    Args:
        values: (N, K), one contiguous stretch of time; what stands at invalid places is not looked at.
        valid: (N,) bool. Invalid places take no part, in the sum or in the count; their result is NaN.
        radius: frames on each side; 0 returns the values.
    """
    if radius < 0:
        raise ValueError(f"radius {radius} is negative")
    if len(values) == 0:
        return values.astype(np.float64)
    held = np.where(valid[:, None], values, 0.0).astype(np.float64)
    if radius == 0:
        return np.where(valid[:, None], held, np.nan)
    # Every window is summed by itself, in a fixed order: a running sum would let early frames change the last bits of
    # late ones.
    total, count = np.zeros_like(held), np.zeros(len(held))
    padded = np.pad(held, ((radius, radius), (0, 0)))
    counted = np.pad(valid.astype(np.float64), radius)
    for shift in range(2 * radius + 1):
        total += padded[shift : shift + len(held)]
        count += counted[shift : shift + len(held)]
    return np.where(valid[:, None], total / np.maximum(count, 1)[:, None], np.nan)
