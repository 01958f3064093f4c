"""Folds and held-out videos of a store, which are balanced by the number of positives of every AU.

The results depend only on the counts, so they are equal on every worker and in every later run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aupipe.arrays import Floats, Ints
from aupipe.facestore.columns import labels

FOLDS = 4  # as in Yu et al. (ABAW5, 2023), in addition to the official split


def video_positives(rows: pa.Table) -> dict[str, Ints]:
    """Return counts (13,) per base video: frames with AU k = 1 for each of the 12 AUs, then all frames.

    Args:
        rows: table with the columns `video_id` and `au`.
    """
    videos = rows["video_id"].combine_chunks().dictionary_encode()
    codes, names = videos.indices.to_numpy(), videos.dictionary.to_pylist()
    positives = [np.bincount(codes, weights=column == 1, minlength=len(names)) for column in labels(rows).T]
    counts = np.stack([*positives, np.bincount(codes, minlength=len(names))], axis=1).astype(np.int64)
    return dict(zip(names, counts, strict=True))


def folds(positives: Mapping[str, npt.NDArray[np.integer]], count: int = FOLDS) -> dict[str, int]:
    """Return the fold 0 … count−1 of every base video. The folds have similar numbers of positives of every AU.

    The method is greedy. Videos are sorted by their largest share of any AU's positives, in descending order. Each is
    assigned to the fold with the fewest positives of the AUs in the video. The result depends only on the arguments.

    Args:
        positives: base video → counts, all of the same length (see `video_positives`).
    """
    names = sorted(positives)
    if not names:
        return {}
    shares = _shares(positives, names)
    order = sorted(range(len(names)), key=lambda i: (-shares[i].max(), names[i]))
    held = np.zeros((count, shares.shape[1]))
    sizes = np.zeros(count, int)
    result = {}
    for video in order:
        cost = held @ shares[video]
        fold = min(range(count), key=lambda f: (cost[f], sizes[f], f))
        held[fold] += shares[video]
        sizes[fold] += 1
        result[names[video]] = fold
    return result


def held_out(positives: Mapping[str, npt.NDArray[np.integer]], fraction: float) -> frozenset[str]:
    """Return about `fraction` (≤ 0.5) of the base videos, balanced like a fold, for fitting thresholds and smoothing.

    Of 1 / `fraction` folds it is the one whose shares of every AU's positives are nearest to `fraction`. It contains at
    least one video if there are two and `fraction` is above 0, and never all videos.
    """
    if fraction <= 0 or len(positives) < 2:
        return frozenset()
    parts = folds(positives, max(2, round(min(1 / fraction, len(positives)))))
    names = sorted(positives)
    shares = _shares(positives, names)
    numbers = np.array([parts[name] for name in names])

    def off(part: int) -> float:
        return float(np.square(shares[numbers == part].sum(axis=0) - fraction).sum())

    chosen = min(sorted(set(parts.values())), key=off)
    return frozenset(name for name, part in parts.items() if part == chosen)


def _shares(positives: Mapping[str, npt.NDArray[np.integer]], names: list[str]) -> Floats:
    """Return each video's share (videos, K) of the total of every count."""
    table = np.stack([np.asarray(positives[name], np.float64) for name in names])
    return table / np.maximum(table.sum(axis=0), 1)
