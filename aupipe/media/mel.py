"""Sound as a log-mel spectrogram (64, M), and the column of it that belongs to a frame's time.

Jin et al.: A Multi-modal and Multi-task Learning Method for Action Unit and Expression Recognition (ABAW2, 2021): 64
mels, windows of 10 ms every 5 ms; the rest is that of their published code, cheersking/ABAW2-CPICDIR2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

N_MELS = 64
Samples = npt.NDArray[np.int16] | npt.NDArray[np.float32]

_TOP_HZ = 22050  # of the highest filter at any sample rate, so that a filter means the same frequencies everywhere
_REFERENCE_HZ = 44100  # at other rates levels are as they would be at this one
_MEAN_DB, _STD_DB, _RANGE_DB = -14.8, 19.895, 80.0
COLUMNS_PER_PIECE = 4096  # fixed, so that a column's value does not depend on how the samples came in; about 20 s


def hop(rate_hz: int) -> int:
    """Samples from one column to the next: 5 ms rounded down to whole samples, 220 at 44.1 kHz (4.9887 ms)."""
    return max(1, rate_hz // 200)


def log_mel(blocks: Iterable[Samples], rate_hz: int) -> Tensor:
    """The log-mel spectrogram (64, M) float32, M = samples // hop + 1, of sound that comes in one block or in many.

    Decibels of power, at most 80 below the loudest, less −14.8 and divided by 19.895; then the sum of two channels. A
    mono recording counts once. Beyond either end there is silence; without a single block M is 0.

    Args:
        blocks: consecutive samples (channels, n), int16 or float32 in −1..1; one or two channels.
    """
    pieces = list(decibels(blocks, rate_hz))
    if not pieces:
        return torch.zeros(N_MELS, 0)
    whole = torch.cat(pieces, dim=-1)
    return normalized(whole, float(whole.max()))


def decibels(blocks: Iterable[Samples], rate_hz: int) -> Iterator[Tensor]:
    """The spectrogram before it is normalized, (channels, 64, m) float32: COLUMNS_PER_PIECE columns but the last."""
    from torchaudio.functional import amplitude_to_DB  # seconds of import that only this function needs
    from torchaudio.transforms import MelSpectrogram

    window, fft = _sizes(rate_hz)
    with warnings.catch_warnings():
        # At 44.1 kHz and a transform of 512 the lowest filter lies between two bins; so it did for the authors.
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        spectrogram = MelSpectrogram(
            sample_rate=rate_hz, n_fft=fft, win_length=window, hop_length=hop(rate_hz), f_max=_TOP_HZ, n_mels=N_MELS,
            center=False,
        )  # fmt: skip
    for chunk in _chunks(blocks, fft=fft, hop=hop(rate_hz)):
        power = spectrogram(chunk * _gain(rate_hz))
        yield amplitude_to_DB(power, 10.0, amin=1e-10, db_multiplier=0.0, top_db=None)


def normalized(piece: Tensor, loudest_db: float) -> Tensor:
    """(64, m) of decibels (channels, 64, m).

    Args:
        loudest_db: of the whole recording.
    """
    return ((piece.clamp(min=loudest_db - _RANGE_DB) - _MEAN_DB) / _STD_DB).sum(dim=0)


def columns(time_s: npt.NDArray[np.float64], *, start_s: float, rate_hz: int, count: int) -> npt.NDArray[np.int64]:
    """The column at each media time (S,), −1 where there is no sound, or no time: NaN.

    Args:
        start_s: media time of the first sample.
        count: M.
    """
    nearest = np.rint((time_s - start_s) * rate_hz / hop(rate_hz))
    return np.where((nearest >= 0) & (nearest < count), nearest, -1).astype(np.int64)


def _sizes(rate_hz: int) -> tuple[int, int]:
    """Samples of a window, 10 ms, and of the transform, the next power of two."""
    window = max(2, rate_hz // 100)
    return window, 1 << (window - 1).bit_length()


def _gain(rate_hz: int) -> float:
    """What samples are multiplied by: power in a filter grows with the window's square and the bins that it holds."""
    (window, fft), (usual_window, usual_fft) = _sizes(rate_hz), _sizes(_REFERENCE_HZ)
    bins = (rate_hz / fft) / (_REFERENCE_HZ / usual_fft)
    return usual_window / window * bins**0.5


def _chunks(blocks: Iterable[Samples], *, fft: int, hop: int) -> Iterator[Tensor]:
    """Pieces (channels, n) float32 whose windows follow each other, the first one's middle at the first sample."""
    wanted = (COLUMNS_PER_PIECE - 1) * hop + fft
    held: Tensor | None = None
    for block in blocks:
        samples = _floats(block)
        held = torch.cat([samples.new_zeros(len(samples), fft // 2) if held is None else held, samples], dim=1)
        while held.shape[1] >= wanted:
            yield held[:, :wanted]
            held = held[:, COLUMNS_PER_PIECE * hop :]
    if held is not None:
        held = torch.cat([held, held.new_zeros(len(held), fft // 2)], dim=1)
        while held.shape[1] >= fft:
            yield held[:, :wanted]
            held = held[:, COLUMNS_PER_PIECE * hop :]


def _floats(samples: Samples) -> Tensor:
    values = torch.from_numpy(samples)
    return values.float() / 32768 if values.dtype == torch.int16 else values
