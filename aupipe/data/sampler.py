"""The training plan: the rows of each rank at (seed, epoch, step). Pure functions, so training can resume at any step.

Rows are numbered as in the store. The order of an epoch shuffles row groups, then the rows within windows of several
row groups. A reader therefore keeps only the groups of one or two windows in memory, whatever the size of the store.
Ranks take slices of one global order, so the rows of a step do not depend on the number of ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.arrays import Bools, Ints, Labels

Task = Literal["au", "expr", "identity"]

RARE = tuple(facs.AUS.index(au) for au in ("AU02", "AU15", "AU23", "AU24", "AU26"))


def seed_of(*keys: int | str) -> int:
    """Return a seed in 0 … 2⁶³−1 that depends on all keys and is the same on every machine."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def every_nth(frames: Ints, n: int) -> Bools:
    """Return (N,) True for frame numbers 1, n+1, 2n+1, …; missing frames do not shift the pattern."""
    return (frames - 1) % n == 0


def every_nth_and_rare(edges: Ints, labels: Labels, n: int, rare_n: int) -> Bools:
    """Keep one frame in n, and one in rare_n if a rare AU (2, 15, 23, 24, 26) is on; Yu et al. (ABAW5, 2023): 10 and 5.

    Frame i = 1, 2, … of a track, counted over its rows, is kept if i mod n = 1, or if i mod rare_n = 1 and a rare AU
    is on.

    Args:
        edges: of the tracks (see `track_edges`).
        labels: (N, 12).
    """
    index = np.arange(len(labels)) - np.repeat(edges[:-1], np.diff(edges))  # 0-based: i − 1
    return (index % n == 0) | ((index % rare_n == 0) & (labels[:, RARE] == 1).any(axis=1))


def balanced_subset(positives: Ints, fraction: float) -> Ints:
    """Choose a subset of clips in which rare AUs are over-represented; Tu et al. train their prompts on such a subset.

    Greedy: the AU with the fewest positives so far gets the remaining clip with most of them, until the subset is full.
    An AU without a remaining clip is skipped. Ties go to the first AU and the first clip.

    Args:
        positives: (clips, 12) number of positive frames.
        fraction: of the clips, 0 … 1; at least one is chosen.

    Returns:
        Numbers of the clips, ascending.
    """
    count, aus = positives.shape
    free = np.ones(count, dtype=bool)
    counts = np.zeros(aus, dtype=np.int64)
    most_first = np.argsort(-positives, axis=0, kind="stable")  # the clips in the order in which each AU takes them
    places = np.zeros(aus, dtype=np.int64)
    for _ in range(min(max(round(fraction * count), 1), count)):
        for au in range(aus):
            while not free[most_first[places[au], au]]:
                places[au] += 1
        following = most_first[places, np.arange(aus)]
        available = positives[following, np.arange(aus)] > 0
        au = int(np.where(available, counts, np.iinfo(np.int64).max).argmin())
        clip = following[au]
        free[clip] = False
        counts += positives[clip]
    return np.flatnonzero(~free)


def uniform_subset(count: int, fraction: float, *, seed: int) -> Ints:
    """Choose as many of `count` clips as `balanced_subset`, each with the same probability; the numbers ascend."""
    rng = np.random.default_rng(seed_of(seed, "subset"))
    return np.sort(rng.permutation(count)[: min(max(round(fraction * count), 1), count)])


def track_edges(*columns: npt.NDArray, frames: Ints | None = None) -> Ints:
    """Return the first row of each track and, last, N: (tracks + 1,). A track ends where any column (N,) changes.

    Args:
        frames: (N,) frame numbers. A track also ends where they do not rise, because a video may be in two splits, for
            different tasks, and the rows of both may follow each other.
    """
    count = len(columns[0])
    cut = np.zeros(max(count - 1, 0), dtype=bool)
    for column in columns:
        cut |= column[1:] != column[:-1]
    if frames is not None:
        cut |= frames[1:] <= frames[:-1]
    return np.concatenate([[0], np.flatnonzero(cut) + 1, [count]]).astype(np.int64)[0 if count else 1 :]


def epoch_order(groups: Ints, *, seed: int, epoch: int, window: int) -> Ints:
    """Return the order (N,) of rows 0 … N−1 in an epoch.

    Args:
        groups: (N,) row group of each row, ascending.
        window: number of row groups that are shuffled together.
    """
    rng = np.random.default_rng(seed_of(seed, "order", epoch))
    distinct, codes = np.unique(groups, return_inverse=True)
    window_of = rng.permutation(len(distinct)) // window  # of each group
    # A stable sort by window of shuffled rows keeps a random order within each window.
    shuffled = rng.permutation(len(groups))
    order: Ints = shuffled[np.argsort(window_of[codes[shuffled]], kind="stable")]
    return order


def steps(rows: int, batch: int) -> int:
    """Return the optimizer steps of an epoch; only whole global batches count."""
    return rows // batch


def task_schedule(
    steps: Mapping[Task, int], alternate: Literal["epoch", "batch"], *, epoch: int
) -> list[tuple[Task, int, int]]:
    """Return (task, pass through its data, step of that pass) for every step of an epoch (Jin et al., ABAW2 2021).

    Args:
        steps: task → steps of a pass through its data, in the order in which tasks alternate.
        alternate: epoch: a whole pass of each task, one after the other. batch: one step of each task in turn, until
            the last task has completed a pass; the other tasks resume where the previous epoch ended, and repeat.
    """
    if alternate == "epoch":
        return [(task, epoch, step) for task, count in steps.items() for step in range(count)]
    leading = list(steps.values())[-1]
    numbers = range(epoch * leading, (epoch + 1) * leading)
    return [(task, *divmod(number, count)) for number in numbers for task, count in steps.items()]


def rank_rows(order: Ints, *, step: int, batch: int, rank: int, world: int) -> Ints:
    """Return this rank's part of global batch `step`; its size is `local_batch_size`."""
    first, last = (step * batch + batch * number // world for number in (rank, rank + 1))
    return order[first:last]


def local_batch_size(batch: int, *, rank: int, world: int) -> int:
    """Return the number of clips of a batch for this rank; ranks differ by at most one."""
    return batch * (rank + 1) // world - batch * rank // world
