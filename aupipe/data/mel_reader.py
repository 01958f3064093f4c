"""The sound of a store's videos for heads that hear: log-mel spectrograms, and the columns of them at frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupipe.arrays import Floats, Ints
from aupipe.facestore.read import FaceStore
from aupipe.media.mel import N_MELS, columns, log_mel
from aupipe.models.sliding_window import mel_slice

KEPT_VIDEOS = 64  # spectrograms held at a time; one of five minutes takes 15 MB


class LogMel(NamedTuple):
    mel: Tensor  # (64, M); M = 0 without sound
    start_s: float
    rate_hz: int

    def columns(self, time_s: Floats) -> Ints:
        """(…) the column at each media time, −1 where there is no sound."""
        return columns(time_s, start_s=self.start_s, rate_hz=self.rate_hz, count=self.mel.shape[1])


class LogMelCache:
    """Spectrograms of the videos of one store, worked out as they are asked for; the last ones stay in memory."""

    def __init__(self, index: FaceStore) -> None:
        self._index = index
        self.of = lru_cache(KEPT_VIDEOS)(self._load)  # by video_id

    def _load(self, video_id: str) -> LogMel:
        audio = self._index.audio(video_id)
        if audio is None:
            return LogMel(torch.zeros(N_MELS, 0), 0.0, 1)
        return LogMel(log_mel([audio.waveform], audio.rate_hz), audio.start_s, audio.rate_hz)

    def clips(self, videos: Sequence[str], time_s: Floats) -> tuple[Tensor, Tensor]:
        """Sound around clips: `mel` (B, 64, M), behind the shorter ones zeros, the mean level, and `column` (B, S).

        Args:
            videos: of each clip.
            time_s: (B, S).
        """
        found = [self.of(video) for video in videos]
        each = [mel_slice(sound.mel, sound.columns(times)) for sound, times in zip(found, time_s, strict=True)]
        mel = torch.zeros(len(each), N_MELS, max(part.shape[-1] for part, _ in each))
        for row, (part, _) in zip(mel, each, strict=True):
            row[:, : part.shape[-1]] = part
        return mel, torch.from_numpy(np.stack([column for _, column in each]))
