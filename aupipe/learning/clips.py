"""Clips of S frames for models that look at a stretch of time.

Clips run over the frames that a track has, so their frames need not follow each other in time: the real frame numbers
go along, and positions and sound must be taken by those.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from aupipe.learning.metrics import Bools, Ints
from aupipe.learning.sampling import seed_of


@dataclass(frozen=True)
class Clips:
    """C clips of S frames."""

    rows: Ints  # (C, S) numbers of the rows
    frames: Ints  # (C, S) real frame numbers
    real: Bools  # (C, S) False: padding, a repetition of the track's last frame
    new: Bools  # (C, S) what to learn from or to score

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Ints) -> Clips:
        return Clips(self.rows[chosen], self.frames[chosen], self.real[chosen], self.new[chosen])


def single(frames: Ints) -> Clips:
    """Every row by itself."""
    true = np.ones((len(frames), 1), dtype=bool)
    return Clips(np.arange(len(frames))[:, None], frames[:, None], true, true)


def runs(frames: Ints, edges: Ints, size: int) -> Clips:
    """Consecutive clips of every track; the last is padded. Every frame is new once. (Tu et al., by their lab's code.)

    Args:
        frames: (N,) real frame numbers of the rows.
        edges: of the tracks (see `sampling.track_edges`).
    """
    return _cut(frames, edges, size, lambda track, length: range(0, length, size))


def windows(frames: Ints, edges: Ints, size: int, *, stride: int, seed: int, epoch: int) -> Clips:
    """Windows to learn from, `stride` frames apart from a random start 0 … `stride` in every track; all of it is new.

    Jin et al. (ABAW2, 2021) take size 30, stride 10. Their number does not depend on the start: what would go beyond
    the end of a track is moved back.
    """

    def starts(track: int, length: int) -> Iterable[int]:
        last = max(length - size, 0)
        first = seed_of(seed, "window", epoch, track) % (stride + 1)
        return (min(first + start, last) for start in range(0, last + 1, stride))

    clips = _cut(frames, edges, size, starts)
    return replace(clips, new=clips.real)


def _cut(frames: Ints, edges: Ints, size: int, starts: Callable[[int, int], Iterable[int]]) -> Clips:
    """Clips that begin at `starts(track, length)`; clip n of a track brings its frames from n · size on as new ones."""
    rows, real, new = [], [], []
    for track, (begin, end) in enumerate(itertools.pairwise(edges.tolist())):
        length = end - begin
        for number, start in enumerate(starts(track, length)):
            places = start + np.arange(size)
            rows.append(begin + np.minimum(places, length - 1))
            real.append(places < length)
            new.append((places < length) & (places >= number * size))
    shape = (len(rows), size)
    chosen = np.array(rows, dtype=np.int64).reshape(shape)
    return Clips(chosen, frames[chosen], np.array(real, bool).reshape(shape), np.array(new, bool).reshape(shape))
