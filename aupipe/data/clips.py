"""Clips of S frames for temporal models.

A clip consists of consecutive rows of a track, which may have gaps in time. Positions and audio must therefore be
looked up by the time of each row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from aupipe.arrays import Bools, Ints
from aupipe.data.sampler import seed_of


@dataclass(frozen=True)
class Clips:
    """C clips of S frames."""

    rows: Ints  # (C, S) numbers of the rows
    valid: Bools  # (C, S) False: padding, which repeats the track's last frame

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Ints) -> Clips:
        return Clips(self.rows[chosen], self.valid[chosen])


def single(count: int) -> Clips:
    """Return `count` clips of one row each."""
    return Clips(np.arange(count)[:, None], np.ones((count, 1), dtype=bool))


def runs(edges: Ints, size: int) -> Clips:
    """Return consecutive clips of every track, the last one padded; each frame occurs once (code of Tu et al.'s lab).

    Args:
        edges: of the tracks (see `sampler.track_edges`).
    """
    return _cut(edges, size, lambda track, length: range(0, length, size))


def windows(edges: Ints, size: int, *, stride: int, seed: int, epoch: int) -> Clips:
    """Return training windows, `stride` frames apart from a random start 0 … `stride` in every track.

    Jin et al. (ABAW2, 2021) use size 30, stride 10. The number of windows does not depend on the start, because a
    window that would end beyond the track is moved back.
    """

    def starts(track: int, length: int) -> Iterable[int]:
        last = max(length - size, 0)
        first = seed_of(seed, "window", epoch, track) % (stride + 1)
        return (min(first + start, last) for start in range(0, last + 1, stride))

    return _cut(edges, size, starts)


def _cut(edges: Ints, size: int, starts: Callable[[int, int], Iterable[int]]) -> Clips:
    """Return the clips that begin at `starts(track, length)` in each track."""
    rows, valid = [], []
    for track, (begin, end) in enumerate(itertools.pairwise(edges.tolist())):
        length = end - begin
        for start in starts(track, length):
            places = start + np.arange(size)
            rows.append(begin + np.minimum(places, length - 1))
            valid.append(places < length)
    shape = (len(rows), size)
    return Clips(np.array(rows, dtype=np.int64).reshape(shape), np.array(valid, bool).reshape(shape))
