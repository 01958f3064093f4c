"""Smoothing of probabilities over time."""

from __future__ import annotations

import itertools

import numpy as np

from aupipe.facestore import gaps


def smooth_track(frames: np.ndarray, times_s: np.ndarray, values: np.ndarray, radius: int) -> np.ndarray:
    """Return the box mean (N, K) along one face's track.

    Gaps of at most `gaps.MAX_GAP_S` are interpolated linearly; no window spans a longer gap. Thresholds are fitted on
    probabilities smoothed by this function as well.

    Args:
        frames: (N,) frame numbers, ascending.
        times_s: (N,) media time of each frame.
        values: (N, K), without NaN.
        radius: frames on each side; 0 returns the values.
    """
    if radius == 0 or not len(values):
        return values
    result = np.empty_like(values)
    ends = np.flatnonzero(np.diff(times_s) > gaps.MAX_GAP_S) + 1
    for start, end in itertools.pairwise([0, *ends.tolist(), len(frames)]):
        known = frames[start:end]
        target = np.arange(known[0], known[-1] + 1)
        dense = gaps.interpolate(target, known, values[start:end], np.ones(len(known) - 1, dtype=bool))
        result[start:end] = box_mean(dense, np.ones(len(dense), dtype=bool), radius)[known - known[0]]
    return result


def box_mean(values: np.ndarray, valid: np.ndarray, radius: int) -> np.ndarray:
    """Return the mean (N, K) over up to `radius` valid neighbors on each side; the window shrinks at the ends.

    Args:
        values: (N, K), contiguous in time; values at invalid positions are ignored.
        valid: (N,) bool. Invalid positions count neither in the sum nor in the divisor; their result is NaN.
        radius: frames on each side; 0 returns the values.
    """
    if radius < 0:
        raise ValueError(f"radius {radius} is negative")
    if len(values) == 0:
        return values.astype(np.float64)
    filled = np.where(valid[:, None], values, 0.0).astype(np.float64)
    if radius == 0:
        return np.where(valid[:, None], filled, np.nan)
    # Every window is summed separately in a fixed order, because in a running sum early frames would change the last
    # bits of late ones.
    total, count = np.zeros_like(filled), np.zeros(len(filled))
    padded = np.pad(filled, ((radius, radius), (0, 0)))
    counted = np.pad(valid.astype(np.float64), radius)
    for shift in range(2 * radius + 1):
        total += padded[shift : shift + len(filled)]
        count += counted[shift : shift + len(filled)]
    return np.where(valid[:, None], total / np.maximum(count, 1)[:, None], np.nan)
