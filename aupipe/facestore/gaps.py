"""Gaps in a track, which are frames without a crop. Values are interpolated linearly across short gaps only."""

from __future__ import annotations

import numpy as np

from aupipe.arrays import Bools, Floats, Ints

MAX_GAP_S = 2.0


def interpolate(target: Ints, frames: Ints, values: Floats, bridged: Bools) -> Floats:
    """Return values (M, K) at the target frames (M,).

    A known frame has its own values. Frames in a bridged gap have the linear interpolation of its ends. All other
    frames have NaN.

    Args:
        frames: (N,) known frames, ascending; N ≥ 1.
        values: (N, K).
        bridged: (N−1,) whether the gap between a known frame and the next may be bridged.
    """
    after = np.clip(np.searchsorted(frames, target), 0, len(frames) - 1)
    before = np.clip(np.searchsorted(frames, target, side="right") - 1, 0, len(frames) - 1)
    known = frames[before] == target
    inside = (frames[before] < target) & np.append(bridged, False)[before]
    part = (target - frames[before]) / np.maximum(frames[after] - frames[before], 1)
    line = values[before] + np.where(inside, part, 0.0)[:, None] * (values[after] - values[before])
    return np.where((known | inside)[:, None], line, np.nan)
