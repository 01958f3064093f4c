"""The training plan: which rows a rank learns from at (seed, epoch, step). Pure functions, so any step can be a start.

Rows are numbered as in the store. The order of an epoch shuffles row groups, then the rows within windows of so many
row groups: a reader that goes through it holds only the groups of a window or two, whatever the size of the store.
Ranks take slices of one global order, so the rows of a step do not depend on how many ranks share them.
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
    """A seed in 0 … 2⁶³−1 that depends on all the keys; the same on every machine."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def every_nth(frames: Ints, n: int) -> Bools:
    """True for frames 1, n+1, 2n+1, … (N,), by their real numbers: gaps do not shift the pattern."""
    return (frames - 1) % n == 0


def every_nth_and_rare(edges: Ints, labels: Labels, n: int, rare_n: int) -> Bools:
    """One frame in n, and one in rare_n where a rare AU (2, 15, 23, 24, 26) is on; Yu et al. (ABAW5, 2023): 10 and 5.

    Frame i = 1, 2, … of a track, counted over the rows that are there, is kept if i mod n = 1, or i mod rare_n = 1 and
    a rare AU is on.

    Args:
        edges: of the tracks (see `track_edges`).
        labels: (N, 12).
    """
    index = np.arange(len(labels)) - np.repeat(edges[:-1], np.diff(edges))  # 0-based: i − 1
    return (index % n == 0) | ((index % rare_n == 0) & (labels[:, RARE] == 1).any(axis=1))


def balanced_subset(positives: Ints, fraction: float) -> Ints:
    """A part of the clips with more of the rarest AUs than chance gives; Tu et al. learn their prompts on such a part.

    Greedy: the AU with least positives so far gets the clip with most of it, until the part is full. An AU that no clip
    is left for is passed over; ties go to the first AU and the first clip.

    Args:
        positives: (clips, 12) positive frames.
        fraction: of the clips, 0 … 1; at least one is taken.

    Returns:
        Numbers of the clips, ascending.
    """
    free = np.ones(len(positives), dtype=bool)
    held = np.zeros(positives.shape[1], dtype=np.int64)
    for _ in range(min(max(round(fraction * len(positives)), 1), len(positives))):
        left = np.where(free[:, None], positives, -1)
        wanting = left.max(axis=0) > 0
        au = int(np.where(wanting, held, np.iinfo(np.int64).max).argmin())
        clip = int(left[:, au].argmax())
        free[clip] = False
        held += positives[clip]
    return np.flatnonzero(~free)


def track_edges(*columns: npt.NDArray) -> Ints:
    """Where tracks begin and, at the end, N: (tracks + 1,). A track ends where any of the columns (N,) changes."""
    count = len(columns[0])
    cut = np.zeros(max(count - 1, 0), dtype=bool)
    for column in columns:
        cut |= column[1:] != column[:-1]
    return np.concatenate([[0], np.flatnonzero(cut) + 1, [count]]).astype(np.int64)[0 if count else 1 :]


def epoch_order(groups: Ints, *, seed: int, epoch: int, window: int) -> Ints:
    """The order (N,) in which an epoch takes the rows 0 … N−1, given the row group (N,) of each.

    Args:
        groups: ascending.
        window: how many row groups are shuffled into each other.
    """
    rng = np.random.default_rng(seed_of(seed, "order", epoch))
    distinct, codes = np.unique(groups, return_inverse=True)
    turn = rng.permutation(len(distinct)) // window  # the window that each group falls into
    # A stable sort by window of rows already shuffled leaves a random order within each window.
    shuffled = rng.permutation(len(groups))
    order: Ints = shuffled[np.argsort(turn[codes[shuffled]], kind="stable")]
    return order


def steps(rows: int, batch: int) -> int:
    """Optimizer steps of an epoch: whole global batches only."""
    return rows // batch


def task_schedule(
    steps: Mapping[Task, int], alternate: Literal["epoch", "batch"], *, epoch: int
) -> list[tuple[Task, int, int]]:
    """The (task, pass through its data, step of that pass) of every step of an epoch. (Jin et al., ABAW2 2021.)

    Args:
        steps: task → steps of a pass through its data, in the order in which they take turns.
        alternate: epoch: a whole pass of each task, one after the other. batch: one step of each in turn, until the
            last task is through; the others go on where the epoch before left them, over and over.
    """
    if alternate == "epoch":
        return [(task, epoch, step) for task, count in steps.items() for step in range(count)]
    leading = list(steps.values())[-1]
    numbers = range(epoch * leading, (epoch + 1) * leading)
    return [(task, *divmod(number, count)) for number in numbers for task, count in steps.items()]


def rank_rows(order: Ints, *, step: int, batch: int, rank: int, world: int) -> Ints:
    """The part of global batch `step` that is this rank's; its size is `local_batch_size`."""
    first, last = (step * batch + batch * number // world for number in (rank, rank + 1))
    return order[first:last]


def local_batch_size(batch: int, *, rank: int, world: int) -> int:
    """How many clips of a batch are this rank's: as many as every other's, or one more or less."""
    return batch * (rank + 1) // world - batch * rank // world
