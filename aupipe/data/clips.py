"""Clips of S frames for models that look at a stretch of time.

Clips run over the frames that a track has, which need not follow each other in time: positions and sound must be taken
by the times of the rows.
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
    valid: Bools  # (C, S) False: padding, a repetition of the track's last frame

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Ints) -> Clips:
        return Clips(self.rows[chosen], self.valid[chosen])


def single(count: int) -> Clips:
    """Each of that many rows by itself."""
    return Clips(np.arange(count)[:, None], np.ones((count, 1), dtype=bool))


def runs(edges: Ints, size: int) -> Clips:
    """Consecutive clips of every track, the last one padded: every frame once (Tu et al., by their lab's code).

    Args:
        edges: of the tracks (see `sampling.track_edges`).
    """
    return _cut(edges, size, lambda track, length: range(0, length, size))


def windows(edges: Ints, size: int, *, stride: int, seed: int, epoch: int) -> Clips:
    """Windows to learn from, `stride` frames apart from a random start 0 … `stride` in every track.

    Jin et al. (ABAW2, 2021) take size 30, stride 10. Their number does not depend on the start: what would go beyond
    the end of a track is moved back.
    """

    def starts(track: int, length: int) -> Iterable[int]:
        last = max(length - size, 0)
        first = seed_of(seed, "window", epoch, track) % (stride + 1)
        return (min(first + start, last) for start in range(0, last + 1, stride))

    return _cut(edges, size, starts)


def _cut(edges: Ints, size: int, starts: Callable[[int, int], Iterable[int]]) -> Clips:
    """Clips that begin at `starts(track, length)` in each track."""
    rows, real = [], []
    for track, (begin, end) in enumerate(itertools.pairwise(edges.tolist())):
        length = end - begin
        for start in starts(track, length):
            places = start + np.arange(size)
            rows.append(begin + np.minimum(places, length - 1))
            real.append(places < length)
    shape = (len(rows), size)
    return Clips(np.array(rows, dtype=np.int64).reshape(shape), np.array(real, bool).reshape(shape))
