"""Times of a track's frames: media time, or the frame rate in an Aff-Wild2 name if there is none."""

from __future__ import annotations

import re

import numpy as np

from aupipe.arrays import Floats, Ints

_DEFAULT_RATE_HZ = 30.0
_NAME_WITH_RATE = re.compile(r"[^-]+-(?P<rate>\d+(\.\d+)?)-\d+x\d+(-\d+)?(_left|_right)?")


def frame_rate_hz(name: str) -> float:
    """Return the frame rate in an Aff-Wild2 name (`ID-RATE-WxH`, or `-N` after it for part N), 30 Hz if it has none."""
    match = _NAME_WITH_RATE.fullmatch(name)
    return float(match["rate"]) if match else _DEFAULT_RATE_HZ


def frame_times_s(name: str, frames: Ints, time_s: Floats | None) -> Floats:
    """Return the times (N,) of a track's frames: media time if every frame has it, otherwise by `frame_rate_hz`.

    Args:
        frames: (N,) frame numbers.
        time_s: (N,) media time, NaN where unknown; None if no frame has it.
    """
    if time_s is not None and not np.isnan(time_s).any():
        return time_s
    return frames / frame_rate_hz(name)
