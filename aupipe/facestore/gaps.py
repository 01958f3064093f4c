"""Holes in a track: frames without a crop. A short one is bridged by a straight line, a long one ends what is known."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from aupipe.arrays import Floats, Ints

MAX_GAP_S = 2.0
_DEFAULT_RATE_HZ = 30.0
_NAME_WITH_RATE = re.compile(r"[^-]+-(?P<rate>\d+(\.\d+)?)-\d+x\d+(_left|_right)?")


def frame_rate(name: str) -> float:
    """Frames a second by an Aff-Wild2 name (`ID-RATE-WxH`), 30 where it does not say."""
    match = _NAME_WITH_RATE.fullmatch(name)
    return float(match["rate"]) if match else _DEFAULT_RATE_HZ


def seconds(name: str, frames: Ints, time_s: Floats | None) -> Floats:
    """(N,) when the frames (N,) of a track were shown: media time if every one has it, else by `frame_rate`."""
    if time_s is not None and not np.isnan(time_s).any():
        return time_s
    return frames / frame_rate(name)


def interpolate(target: Ints, frames: Ints, values: Floats, bridged: npt.NDArray[np.bool_]) -> Floats:
    """(M, K) at target frames (M,): a known frame's own values, in a bridged hole the line between its ends, else NaN.

    Args:
        frames: (N,) known frames, ascending; N ≥ 1.
        values: (N, K).
        bridged: (N−1,) whether the hole between a known frame and the next may be bridged.
    """
    after = np.clip(np.searchsorted(frames, target), 0, len(frames) - 1)
    before = np.clip(np.searchsorted(frames, target, side="right") - 1, 0, len(frames) - 1)
    known = frames[before] == target
    inside = (frames[before] < target) & (target < frames[after]) & np.append(bridged, False)[before]
    part = (target - frames[before]) / np.maximum(frames[after] - frames[before], 1)
    line = values[before] + np.where(inside, part, 0.0)[:, None] * (values[after] - values[before])
    return np.where((known | inside)[:, None], line, np.nan)
