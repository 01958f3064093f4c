"""The log-mel spectrogram (64, M) of audio, and its column at the time of a frame.

It follows Jin et al.: A Multi-modal and Multi-task Learning Method for Action Unit and Expression Recognition (ABAW2,
2021), with 64 mels and windows of 10 ms every 5 ms. All other settings are those of their published code,
cheersking/ABAW2-CPICDIR2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

N_MELS = 64
Samples = npt.NDArray[np.int16] | npt.NDArray[np.float32]

_TOP_HZ = 22050  # top of the highest filter at any sample rate, so that each filter has the same frequencies
_REFERENCE_HZ = 44100  # levels at other sample rates are scaled to those at this rate
_MEAN_DB, _STD_DB, _RANGE_DB = -14.8, 19.895, 80.0
COLUMNS_PER_PIECE = 4096  # about 20 s; fixed, so that a column does not depend on the sizes of the input blocks


def hop(rate_hz: int) -> int:
    """Return the samples between columns: 5 ms rounded down to whole samples, 220 at 44.1 kHz (4.9887 ms)."""
    return max(1, rate_hz // 200)


def log_mel(blocks: Iterable[Samples], rate_hz: int) -> Tensor:
    """Return the log-mel spectrogram (64, M) float32, M = samples // hop + 1, of audio in one or more blocks.

    Values are decibels of power, clamped at 80 dB below the maximum, plus 14.8, divided by 19.895, and then summed over
    the channels (one or two). Both ends are padded with silence. M is 0 without any block.

    Args:
        blocks: consecutive samples (channels, n), int16 or float32 in −1..1; one or two channels.
    """
    import torch  # here and below, because it takes seconds, and only audio needs it in this folder

    pieces = list(decibels(blocks, rate_hz))
    if not pieces:
        return torch.zeros(N_MELS, 0)
    whole = torch.cat(pieces, dim=-1)
    return normalized(whole, float(whole.max()))


def decibels(blocks: Iterable[Samples], rate_hz: int) -> Iterator[Tensor]:
    """Yield the spectrogram before normalization, (channels, 64, m) float32.

    m is COLUMNS_PER_PIECE, and less in the last piece.
    """
    from torchaudio.functional import amplitude_to_DB  # imported here, because it takes seconds
    from torchaudio.transforms import MelSpectrogram

    window, fft = _sizes(rate_hz)
    with warnings.catch_warnings():
        # At 44.1 kHz and a transform of 512 the lowest filter is between two bins, as in the authors' code.
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        spectrogram = MelSpectrogram(
            sample_rate=rate_hz, n_fft=fft, win_length=window, hop_length=hop(rate_hz), f_max=_TOP_HZ, n_mels=N_MELS,
            center=False,
        )  # fmt: skip
    for chunk in _chunks(blocks, fft=fft, hop=hop(rate_hz)):
        power = spectrogram(chunk * _gain(rate_hz))
        yield amplitude_to_DB(power, 10.0, amin=1e-10, db_multiplier=0.0, top_db=None)


def normalized(piece: Tensor, loudest_db: float) -> Tensor:
    """Return the normalized columns (64, m) of decibels (channels, 64, m).

    Args:
        loudest_db: maximum of the whole recording.
    """
    return ((piece.clamp(min=loudest_db - _RANGE_DB) - _MEAN_DB) / _STD_DB).sum(dim=0)


def columns(time_s: npt.NDArray[np.float64], *, start_s: float, rate_hz: int, count: int) -> npt.NDArray[np.int64]:
    """Return the column at each media time (S,), −1 outside the audio or at a time of NaN.

    Args:
        start_s: media time of the first sample.
        count: number of columns M.
    """
    nearest = np.rint((time_s - start_s) * rate_hz / hop(rate_hz))
    return np.where((nearest >= 0) & (nearest < count), nearest, -1).astype(np.int64)


def _sizes(rate_hz: int) -> tuple[int, int]:
    """Return the numbers of samples of a window (10 ms) and of the transform (the next power of two)."""
    window = max(2, rate_hz // 100)
    return window, 1 << (window - 1).bit_length()


def _gain(rate_hz: int) -> float:
    """Return the factor for samples. Power in a filter grows with the square of the window and with its bins."""
    (window, fft), (usual_window, usual_fft) = _sizes(rate_hz), _sizes(_REFERENCE_HZ)
    bins = (rate_hz / fft) / (_REFERENCE_HZ / usual_fft)
    return usual_window / window * bins**0.5


def _chunks(blocks: Iterable[Samples], *, fft: int, hop: int) -> Iterator[Tensor]:
    """Yield pieces (channels, n) float32 of consecutive windows. The first window is centered at the first sample."""
    import torch

    piece_samples = (COLUMNS_PER_PIECE - 1) * hop + fft
    held: Tensor | None = None
    for block in blocks:
        samples = _floats(block)
        held = torch.cat([samples.new_zeros(len(samples), fft // 2) if held is None else held, samples], dim=1)
        while held.shape[1] >= piece_samples:
            yield held[:, :piece_samples]
            held = held[:, COLUMNS_PER_PIECE * hop :]
    if held is not None:
        held = torch.cat([held, held.new_zeros(len(held), fft // 2)], dim=1)
        while held.shape[1] >= fft:
            yield held[:, :piece_samples]
            held = held[:, COLUMNS_PER_PIECE * hop :]


def _floats(samples: Samples) -> Tensor:
    import torch

    values = torch.from_numpy(samples)
    return values.float() / 32768 if values.dtype == torch.int16 else values
