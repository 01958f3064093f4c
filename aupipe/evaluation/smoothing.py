"""Smoothing of probabilities over time."""

from __future__ import annotations

import itertools

import numpy as np

from aupipe.facestore import gaps


def smooth_track(frames: np.ndarray, times_s: np.ndarray, values: np.ndarray, radius: int) -> np.ndarray:
    """(N, K) box mean along one face's track, holes of at most `gaps.MAX_GAP_S` bridged by a straight line.

    A longer hole is an end: nothing is averaged over it. Thresholds are fitted on what comes out of here too.

    Args:
        frames: (N,) frame numbers, ascending.
        times_s: (N,) when they were shown.
        values: (N, K), all of them known.
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
    """(N, K) mean over up to `radius` valid neighbors on each side; the window shrinks at the ends.

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
