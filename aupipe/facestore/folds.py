"""Parts of a store's base videos with like numbers of positives of every AU: folds, and videos held out of learning.

Everything depends on the counts alone, so every worker and every later run finds the same parts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aupipe.facestore.columns import labels

FOLDS = 4  # as in Yu et al. (ABAW5, 2023), beside the official split

Counts = npt.NDArray[np.int64]


def video_positives(rows: pa.Table) -> dict[str, Counts]:
    """(13,) a base video: frames with AU k = 1 for the 12 AUs, then all frames; from columns `video_id`, `au`."""
    videos = rows["video_id"].combine_chunks().dictionary_encode()
    codes, names = videos.indices.to_numpy(), videos.dictionary.to_pylist()
    positives = [np.bincount(codes, weights=column == 1, minlength=len(names)) for column in labels(rows).T]
    counts = np.stack([*positives, np.bincount(codes, minlength=len(names))], axis=1).astype(np.int64)
    return dict(zip(names, counts, strict=True))


def folds(positives: Mapping[str, npt.NDArray[np.integer]], count: int = FOLDS) -> dict[str, int]:
    """A fold 0 … count−1 for every base video, so that the folds have like numbers of positives of every AU.

    Greedy: videos in the order of the largest share of any AU's positives that they hold; each goes to the fold that
    has least of what it brings. The result depends on nothing but the argument.

    Args:
        positives: base video → counts, of one length (see `video_positives`).
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
    """About `fraction` (≤ 0.5) of the base videos, balanced like a fold, to fit thresholds and smoothing on.

    Of as many folds as the fraction asks for, the one whose share of every AU's positives is nearest to `fraction`. At
    least one video if there are two and `fraction` is above 0; never all.
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


def _shares(positives: Mapping[str, npt.NDArray[np.integer]], names: list[str]) -> npt.NDArray[np.float64]:
    """(videos, K): what part of all that is counted each video holds."""
    table = np.stack([np.asarray(positives[name], np.float64) for name in names])
    return table / np.maximum(table.sum(axis=0), 1)
