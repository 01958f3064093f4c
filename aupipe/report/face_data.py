"""The rows of one face as compact arrays for a page, and their summary."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe import facs
from aupipe.annotation.schema import BOX, PROB, RAW

MISSING = 255  # a probability that is null; others are 0..254 for 0..1
MAX_ROWS = 240_000  # rows per page, which are 13 MB: two faces of an hour at 30 frames/s, and some more


@dataclass(frozen=True)
class AuSummary:
    """The rows and events of one AU of one face.

    Attributes:
        rate: share of rows with the AU, of those with a decision; None if there is none.
        mean: mean smoothed probability; None as for `rate`.
        events: number of events.
        events_s: their duration in seconds; None if the video has no times.
    """

    rate: float | None
    mean: float | None
    events: int
    events_s: float | None


def summarize(rows: pa.Table, events: pa.Table) -> tuple[AuSummary, ...]:
    """Return the summary of each AU, in the order of `facs.AUS`, from the frames and events of one face."""
    found = []
    for au in facs.AUS:
        mine = events.filter(pc.equal(events["au"], au))
        durations = pc.subtract(mine["offset_s"], mine["onset_s"])
        found.append(
            AuSummary(
                rate=pc.mean(rows[au].cast(pa.float64())).as_py(), mean=pc.mean(rows[f"{au}_prob"]).as_py(),
                events=len(mine), events_s=None if durations.null_count else pc.sum(durations).as_py() or 0.0,
            )
        )  # fmt: skip
    return tuple(found)


def reduce_rows(values: np.ndarray, factor: int) -> np.ndarray:
    """Return two rows, the minimum and the maximum, for every 2·`factor` rows, so that every peak is kept.

    Args:
        values: (N, K) numbers, N ≥ 0; the last block may be shorter. NaN counts only where a block has nothing else.
        factor: 1 returns `values` unchanged.
    """
    if factor == 1 or not len(values):
        return values
    starts = np.arange(0, len(values), 2 * factor)
    low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    return np.stack([low, high], axis=1).reshape(-1, *values.shape[1:])


def first_rows(values: np.ndarray, factor: int) -> np.ndarray:
    """Return the first row of each half block of `reduce_rows`: values that belong to one instant, such as boxes."""
    if factor == 1 or not len(values):
        return values
    starts = np.arange(0, len(values), 2 * factor)
    return np.asarray(values[np.stack([starts, np.minimum(starts + factor, len(values) - 1)], axis=1).reshape(-1)])


def pack(rows: pa.Table, x: np.ndarray, factor: int = 1) -> dict[str, Any]:
    """Return the rows of one face as base64 of little-endian arrays, for `page.js`.

    `x` is float32 (N,), since the first row of the video. `raw` and `prob` are uint8 (12, N), `MISSING` where null.
    `present` is uint16 (N,): bit i is the decision of the i-th AU. `box` is int16 (N, 4) pixels, and `score` uint8 (N,)
    the detector's. `together` is a list (12, 12) of the number of all rows with both AUs.

    Args:
        rows: rows of the frames table, in order of `x`.
        x: (N,) ascending seconds or frames since the first row of the video, because 32 bits are too few for a clock of
            the day or of years.
        factor: as in `reduce_rows`.
    """
    decided = np.stack([rows[au].fill_null(False).to_numpy(zero_copy_only=False) for au in facs.AUS], axis=1).astype(
        bool
    )
    present = (decided.astype(np.uint16) << np.arange(len(facs.AUS), dtype=np.uint16)).sum(axis=1, dtype=np.uint16)
    together = decided.astype(np.float64).T @ decided
    box = np.stack([_numbers(rows, name, 0.0) for name in BOX], axis=1).clip(-32768, 32767).round().astype("<i2")
    arrays = {
        "x": first_rows(x.astype("<f4"), factor),
        "raw": np.ascontiguousarray(_probabilities(rows, RAW, factor).T),
        "prob": np.ascontiguousarray(_probabilities(rows, PROB, factor).T),
        "present": first_rows(present.astype("<u2"), factor),
        "box": first_rows(box, factor),
        "score": first_rows((_numbers(rows, "detector_score", 0.0).clip(0, 1) * 254).round().astype(np.uint8), factor),
    }
    counts = {"rows": len(arrays["x"]), "together": together.astype(int).tolist()}
    return {**counts, **{name: base64.b64encode(a.tobytes()).decode() for name, a in arrays.items()}}


def _probabilities(rows: pa.Table, names: tuple[str, ...], factor: int) -> np.ndarray:
    values = reduce_rows(np.stack([_numbers(rows, name, np.nan) for name in names], axis=1), factor)
    return np.where(np.isnan(values), MISSING, (np.nan_to_num(values).clip(0, 1) * 254).round()).astype(np.uint8)


def _numbers(rows: pa.Table, name: str, missing: float) -> np.ndarray:
    return np.asarray(rows[name].cast(pa.float64()).fill_null(missing).to_numpy(), np.float64)
