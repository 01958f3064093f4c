"""Which videos train and which validate: the official split with its leaks dealt with, folds, held-out videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.affwild2.layout import Track

LeakFilter = Literal["consistent", "drop_val", "drop_train", "off"]


def official(tracks: Sequence[Track], leak: LeakFilter) -> tuple[dict[tuple[str, str], str], frozenset[str]]:
    """The split of each (track, task), and the base videos that stand in train and in validation.

    The AU and the expression task were split apart from each other, so a video may train one and validate the other; a
    model of both tasks then sees its validation faces in training. On such base videos

    * `drop_train` takes their training labels away: both validation sets stay the official ones;
    * `drop_val` takes their validation labels away (Jin et al., ABAW2);
    * `consistent` puts all their labels into validation: both tasks have the same validation videos;
    * `off` changes nothing.

    A (track, task) that is taken away is missing from the result.
    """
    splits = {(t.name, task): a.split for t in tracks for task, a in t.annotations.items()}
    bases = {track.name: track.video_id for track in tracks}
    seen = {split: {bases[name] for (name, _), s in splits.items() if s == split} for split in ("train", "validation")}
    leaked = frozenset(seen["train"] & seen["validation"])
    if leak == "off":
        return splits, leaked
    if leak == "consistent":
        return {key: "validation" if bases[key[0]] in leaked else split for key, split in splits.items()}, leaked
    gone = "validation" if leak == "drop_val" else "train"
    return {key: split for key, split in splits.items() if split != gone or bases[key[0]] not in leaked}, leaked


def video_positives(video_ids: Sequence[str], au: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.int64]]:
    """(13,) a base video: frames with AU k = 1 for the 12 AUs, then all frames.

    Args:
        video_ids: (N,) of a store's rows.
        au: (N, 12) labels.
    """
    names, inverse = np.unique(np.asarray(video_ids, dtype=str), return_inverse=True)
    counts = np.zeros((len(names), len(facs.AUS) + 1), np.int64)
    for column in range(len(facs.AUS)):
        counts[:, column] = np.bincount(inverse, weights=au[:, column] == 1, minlength=len(names))
    counts[:, -1] = np.bincount(inverse, minlength=len(names))
    return {str(name): row for name, row in zip(names, counts, strict=True)}


def folds(positives: Mapping[str, npt.NDArray[np.integer]], count: int = 4) -> dict[str, int]:
    """A fold 0 … count−1 for every base video, so that the folds have like numbers of positives of every AU.

    Greedy: videos in the order of the largest share of any AU's positives that they hold; each goes to the fold that
    has least of what it brings. The result depends on nothing but the argument.

    Args:
        positives: base video → counts, of one length (see `video_positives`).
    """
    names = sorted(positives)
    if not names:
        return {}
    table = np.stack([np.asarray(positives[name], np.float64) for name in names])
    shares = table / np.maximum(table.sum(axis=0), 1)
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


def held_out(positives: Mapping[str, npt.NDArray[np.integer]], one_in: int = 6) -> frozenset[str]:
    """About one base video in `one_in` of train, balanced like a fold, for fitting thresholds and smoothing."""
    return frozenset(name for name, fold in folds(positives, max(2, one_in)).items() if fold == 0)
