"""A sequence head over a whole track: windows of the head's length, with overlapping predictions averaged.

Evaluation and annotation both use `run_head`. The prediction for a frame depends only on its track.
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
from aupipe.models.interfaces import SequenceBatch, SequenceHead

# Probabilities are averaged instead of logits, as in an ensemble, so that a very confident window does not outweigh the
# others.
PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {"au": torch.sigmoid, "expr": lambda z: z.softmax(dim=-1)}

_FRAMES_PER_CALL = 256  # every call has the same shape: as many windows as fit, at least one
_MEL_MARGIN = 64  # spectrogram columns on either side of a window, more than the context of a time-delay network


class Rows(Protocol):
    """Rows (N, E) that can be read by slice, e.g. a tensor."""

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class Columns(Protocol):
    """Columns (64, M) that can be read by slice, as `[:, a:b]`, e.g. a tensor."""

    def __getitem__(self, at: tuple[slice, slice], /) -> Tensor: ...


@dataclass(frozen=True)
class WindowFrames:
    """The frames at the S positions of some windows.

    Attributes:
        rows: (w, S) frame at each position; a short window is padded with its last frame.
        valid: (w, S) False for padding.
        weights: (w, S) weight of the prediction for that frame; 0: the frame is context only.
    """

    rows: Ints
    valid: npt.NDArray[np.bool_]
    weights: Floats


@dataclass(frozen=True)
class Windows:
    """W windows of `length` positions over a track, in order of time. Each takes three numbers, as a track can be long.

    Attributes:
        start, stop: (W,) the first frame, and the frame after the last.
        new: (W,) the first frame that no earlier window contains.
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
        """Return the frames of these windows (w,)."""
        start, stop, new = (each[windows, None] for each in (self.start, self.stop, self.new))
        rows = start + np.arange(self.length)
        valid = rows < stop
        weights = np.minimum(rows - start + 1, stop - rows) if self.overlap else rows >= new
        return WindowFrames(np.minimum(rows, stop - 1), valid, np.where(valid, weights, 0).astype(np.float64))


def plan_windows(time_s: Floats, length: int, overlap: float) -> Windows:
    """Return windows of `length` positions such that every frame of a track has a positive weight.

    A gap longer than `gaps.MAX_GAP_S` ends a stretch of the track. A stretch with fewer than `length` frames is one
    window; otherwise its last window contains its last `length` frames. Weights are triangular, so that a frame at the
    edge of one window is mainly predicted by a window in which it is further inside. Without overlap each window
    predicts the frames that no earlier window contains (blocks; Jin et al., ABAW2, ICCVW 2021).

    Args:
        time_s: (N,) media time, ascending; without frames there are no windows.
        overlap: share of a window that the next window repeats, 0 ≤ overlap < 1.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap} is not in 0 ≤ overlap < 1")
    step = max(1, length - round(length * overlap))
    edges = [0, *(np.flatnonzero(np.diff(time_s) > gaps.MAX_GAP_S) + 1).tolist(), len(time_s)] if len(time_s) else [0]
    none = np.zeros(0, np.int64)
    starts, stops, news = [none], [none], [none]
    for first, end in pairwise(edges):
        last = max(end - length, first)
        begins = np.minimum(np.arange(first, last + step, step), last)
        starts.append(begins)
        stops.append(np.minimum(begins + length, end))
        news.append(np.concatenate([begins[:1], stops[-1][:-1]]))
    start, stop, new = (np.concatenate(each) for each in (starts, stops, news))
    return Windows(length, start, stop, new, overlap=step != length)


@torch.inference_mode()
def run_head(
    head: SequenceHead, features: Rows, time_s: Floats, *, overlap: float,
    mel: Columns | None = None, column: Ints | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return probabilities {"au": (N, 12)[, "expr": (N, C)]} float32 of the N frames of one track, on the CPU.

    Args:
        head: in eval mode.
        features: (N, E) embeddings, on the head's device.
        time_s: (N,) media time, ascending.
        overlap: as in `plan_windows`.
        mel, column: for a head that uses audio, the log-mel spectrogram of the whole video (64, M) and its column at
            each frame (N,), −1 without audio. None: the video has no audio.
    """
    if not len(time_s):
        sizes = outputs(head, features[0:0].shape[-1])
        return {name: torch.zeros(0, size) for name, size in sizes.items()}
    windows = plan_windows(time_s, head.window_length, overlap)
    # The number of spectrogram columns differs from window to window, so a head that uses audio gets one per call.
    group = 1 if head.uses_audio else max(1, _FRAMES_PER_CALL // head.window_length)
    total: dict[str, Tensor] = {}  # with `weight`, the only data kept for the whole track
    weight = torch.zeros(len(time_s))
    for first in range(0, len(windows), group):
        chosen = np.minimum(np.arange(first, first + group), len(windows) - 1)  # padded with the last window
        not_padded = np.arange(first, first + group) == chosen
        places = windows.places(chosen)
        rows, weights = places.rows, places.weights * not_padded[:, None]
        low = int(rows.min())
        embeddings = features[low : int(rows.max()) + 1][torch.from_numpy(rows - low)]
        audio: tuple[Tensor | None, Tensor | None] = (None, None)
        if head.uses_audio and mel is not None and column is not None:
            part, at = mel_slice(mel, column[rows[0]])  # one window per call
            audio = (part[None], at[None])
        mask, time = torch.from_numpy(places.valid), torch.from_numpy(time_s[rows])
        logits = head(SequenceBatch(embeddings, mask, time, *audio).to(embeddings.device))
        flat, counts = torch.from_numpy(rows).flatten(), torch.from_numpy(weights).float().flatten()
        weight.index_add_(0, flat, counts)
        for name, values in logits.items():
            # Padding is included, because vectorized code gives other last bits at the end of an odd length.
            probabilities = PROBABILITIES[name](values.float()).cpu().flatten(0, 1)
            if name not in total:
                total[name] = torch.zeros(len(time_s), probabilities.shape[-1])
            total[name].index_add_(0, flat, probabilities * counts[:, None])
    return {name: weighted.div_(weight[:, None]) for name, weighted in total.items()}


def outputs(head: SequenceHead, width: int) -> dict[str, int]:
    """Return name → size of the head's outputs, from one call with an empty window; `width` is E."""
    device = next((parameter.device for parameter in head.parameters()), None)
    with torch.inference_mode():
        logits = head(SequenceBatch.untimed(torch.zeros(1, head.window_length, width, device=device)))
    return {name: values.shape[-1] for name, values in logits.items()}


def mel_slice(mel: Columns, column: Ints) -> tuple[Tensor, Tensor]:
    """Cut the spectrogram (64, M) around frames; return it and its column at each frame (S,), −1 without audio.

    Columns further than the margin from every frame are left out, because the frames of a clip may be minutes apart.
    """
    known = np.unique(column[column >= 0])
    if not len(known):
        return mel[:, 0:1], torch.from_numpy(np.full(len(column), -1))
    breaks = np.flatnonzero(np.diff(known) > 2 * _MEL_MARGIN + 1)
    low = np.maximum(known[[0, *(breaks + 1)]] - _MEL_MARGIN, 0)
    high = known[[*breaks, -1]] + _MEL_MARGIN + 1
    before = np.cumsum([0, *(high - low)[:-1]])  # columns of earlier pieces
    pieces = [mel[:, start:stop] for start, stop in zip(low.tolist(), high.tolist(), strict=True)]
    at = np.searchsorted(low, column, side="right") - 1
    places = np.where(column >= 0, column - low[at] + before[at], -1)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1), torch.from_numpy(places)
