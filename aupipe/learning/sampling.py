"""The training plan: which rows a rank learns from at (seed, epoch, step). Pure functions, so any step can be a start.

Rows are numbered as in the store. The order of an epoch shuffles row groups, then the rows within windows of so many
row groups: a reader that goes through it holds only the groups of a window or two, whatever the size of the store.
Ranks take slices of one global order, so the rows of a step do not depend on how many ranks share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from aupipe.learning.metrics import Bools, Ints


def seed_of(*keys: int | str) -> int:
    """A seed in 0 … 2⁶³−1 that depends on all the keys; the same on every machine."""
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def held_out(videos: Iterable[str], fraction: float) -> frozenset[str]:
    """The part of the videos that is kept from learning, to fit thresholds on: chosen by a hash of the name.

    At least one if there are two and `fraction` is above 0; never all.
    """
    names = sorted(set(videos), key=lambda name: (seed_of("held out", name), name))
    count = min(max(round(len(names) * fraction), 1), len(names) - 1) if fraction > 0 and len(names) > 1 else 0
    return frozenset(names[:count])


def every_nth(frames: Ints, n: int) -> Bools:
    """True for frames 1, n+1, 2n+1, … (N,), by their real numbers: gaps do not shift the pattern."""
    return (frames - 1) % n == 0


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
    """Optimiser steps of an epoch: whole global batches only."""
    return rows // batch


def rank_rows(order: Ints, *, step: int, batch: int, rank: int, world: int) -> Ints:
    """The part (batch / world,) of global batch `step` that is this rank's."""
    share = batch // world
    start = step * batch + rank * share
    return order[start : start + share]
