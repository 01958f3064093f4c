"""A sequence head over a whole track: windows of the length that it is made for, blended where they overlap.

Evaluation and annotation both go through `run_head`. What it says of a frame depends on that track alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aupipe.arrays import Floats, Ints
from aupipe.facestore import gaps
from aupipe.models.interfaces import SequenceHead

# How logits become what is blended. Probabilities, since what is thresholded is then their mean, as it is with several
# models, and a window that is very sure of itself outweighs no other.
PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {"au": torch.sigmoid, "expr": lambda z: z.softmax(dim=-1)}

OVERLAP = 0.5  # part of a window that the next one shares, where nobody says

_FRAMES_PER_CALL = 256  # every call has one shape: as many windows as this holds, at least one
_MEL_MARGIN = 64  # columns of sound on either side of a window: more than a time-delay network looks back or ahead


class Rows(Protocol):
    """(N, E) rows that can be read a slice at a time; a tensor is one."""

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class Columns(Protocol):
    """(64, M) columns that can be read a slice at a time, as `[:, a:b]`; a tensor is one."""

    def __getitem__(self, at: tuple[slice, slice], /) -> Tensor: ...


@dataclass(frozen=True)
class WindowFrames:
    """What stands at the S places of some windows.

    Attributes:
        rows: (w, S) the frame at each place; a short window is filled up with its last frame.
        real: (w, S) False where it is filled up.
        weights: (w, S) what is said there counts this much for that frame; 0 = it is there as context only.
    """

    rows: Ints
    real: npt.NDArray[np.bool_]
    weights: Floats


@dataclass(frozen=True)
class Windows:
    """W windows of `length` places over a track, in order of time: three numbers each, as a track can be long.

    Attributes:
        start, stop: (W,) the first frame, and the one after the last.
        new: (W,) the first frame that no window before it holds.
        overlap: whether windows share frames.
    """

    length: int
    start: Ints
    stop: Ints
    new: Ints
    overlap: bool

    def __len__(self) -> int:
        return len(self.start)

    def places(self, windows: Ints) -> WindowFrames:
        """Of these windows (w,)."""
        start, stop, new = (each[windows, None] for each in (self.start, self.stop, self.new))
        rows = start + np.arange(self.length)
        real = rows < stop
        weights = np.minimum(rows - start + 1, stop - rows) if self.overlap else rows >= new
        return WindowFrames(np.minimum(rows, stop - 1), real, np.where(real, weights, 0).astype(np.float64))


def plan_windows(time_s: Floats, length: int, overlap: float) -> Windows:
    """Windows of `length` places such that every frame of a track has a weight.

    A hole longer than `gaps.MAX_GAP_S` ends a window and starts the next; a stretch with fewer than `length` frames is
    one window. The last window of a stretch holds its last `length` frames. Weights are a triangle, so that a frame at
    the edge of one window is told by another in which it is further inside; with no overlap each window tells of the
    frames that none before it held (blocks, the last of which is the last frames: Jin et al., ABAW2, ICCVW 2021).

    Args:
        time_s: (N,) media time, ascending; no frames, no windows.
        overlap: part of a window that the next one shares, 0 ≤ overlap < 1.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap} is not in 0 ≤ overlap < 1")
    step = max(1, length - round(length * overlap))
    edges = [0, *(np.flatnonzero(np.diff(time_s) > gaps.MAX_GAP_S) + 1).tolist(), len(time_s)] if len(time_s) else [0]
    none = np.zeros(0, np.int64)
    starts, stops, told = [none], [none], [none]
    for first, end in pairwise(edges):
        last = max(end - length, first)
        mine = np.minimum(np.arange(first, last + step, step), last)
        starts.append(mine)
        stops.append(np.minimum(mine + length, end))
        told.append(np.concatenate([mine[:1], stops[-1][:-1]]))
    start, stop, new = (np.concatenate(each) for each in (starts, stops, told))
    return Windows(length, start, stop, new, overlap=step != length)


@torch.inference_mode()
def run_head(
    head: SequenceHead, features: Rows, time_s: Floats, *, overlap: float,
    mel: Columns | None = None, column: Ints | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Probabilities {"au": (N, 12)[, "expr": (N, C)]} float32 of the N frames of one track, on the CPU.

    Args:
        head: in eval mode.
        features: (N, E) embeddings, on the head's device.
        time_s: (N,) media time, ascending.
        overlap: as in `plan_windows`.
        mel, column: for a head that uses audio: the log-mel spectrogram of the whole video (64, M) and the column of it
            at each frame (N,), −1 where there is no sound. None: there is no sound at all.
    """
    if not len(time_s):
        sizes = outputs(head, features[0:0].shape[-1])
        return {name: torch.zeros(0, size) for name, size in sizes.items()}
    windows = plan_windows(time_s, head.window_length, overlap)
    # A stretch of sound is as long as its window took, so windows of a head that uses_audio go one by one.
    group = 1 if head.uses_audio else max(1, _FRAMES_PER_CALL // head.window_length)
    total: dict[str, Tensor] = {}  # with `weight` all that is held of the whole track
    weight = torch.zeros(len(time_s))
    for first in range(0, len(windows), group):
        chosen = np.minimum(np.arange(first, first + group), len(windows) - 1)  # filled up with the last window
        there = np.arange(first, first + group) == chosen
        places = windows.places(chosen)
        rows, weights = places.rows, places.weights * there[:, None]
        low = int(rows.min())
        embeddings = features[low : int(rows.max()) + 1][torch.from_numpy(rows - low)]
        sound: tuple[Tensor | None, Tensor | None] = (None, None)
        if head.uses_audio and mel is not None and column is not None:
            heard, at = mel_slice(mel, column[rows[0]])  # one window a call
            sound = (heard[None], at[None])
        real, time = torch.from_numpy(places.real), torch.from_numpy(time_s[rows])
        logits = head(embeddings, *(x if x is None else x.to(embeddings.device) for x in (real, time, *sound)))
        flat, counts = torch.from_numpy(rows).flatten(), torch.from_numpy(weights).float().flatten()
        weight.index_add_(0, flat, counts)
        for name, values in logits.items():
            # Of the whole call, not of what is there: at the end of an odd length vector code gives other last bits.
            said = PROBABILITIES[name](values.float()).cpu().flatten(0, 1)
            if name not in total:
                total[name] = torch.zeros(len(time_s), said.shape[-1])
            total[name].index_add_(0, flat, said * counts[:, None])
    return {name: told.div_(weight[:, None]) for name, told in total.items()}


def outputs(head: SequenceHead, width: int) -> dict[str, int]:
    """Name → size of what the head says, found by asking it about one window of nothing; `width` is E."""
    device = next((parameter.device for parameter in head.parameters()), None)
    shape = (1, head.window_length)
    with torch.inference_mode():
        there = torch.ones(shape, dtype=torch.bool, device=device)
        said = head(torch.zeros(*shape, width, device=device), there, torch.zeros(shape, device=device).double())
    return {name: values.shape[-1] for name, values in said.items()}


def mel_slice(mel: Columns, column: Ints) -> tuple[Tensor, Tensor]:
    """The sound around a window (64, M) and the column of it at each frame (S,), given those of the whole video."""
    heard = column[column >= 0]
    low = max(int(heard.min()) - _MEL_MARGIN, 0) if len(heard) else 0
    high = int(heard.max()) + _MEL_MARGIN + 1 if len(heard) else 1
    return mel[:, low:high], torch.from_numpy(np.where(column >= 0, column - low, -1))
