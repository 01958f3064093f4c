"""Readers of a face store's inputs: decoded crops by row number, and log-mel spectrograms by video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from aupipe.arrays import Floats, Ints
from aupipe.data.loaded import Loaded
from aupipe.errors import DatasetError
from aupipe.faces import CROP_SIZE_PX
from aupipe.facestore.read import FaceStore, RowGroup
from aupipe.media.mel import N_MELS, columns, log_mel
from aupipe.models.sliding_window import mel_slice

KEPT_VIDEOS = 64  # spectrograms in memory; five minutes of audio take 15 MB


class CropReader:
    """Reader of the decoded crops of one split, efficient in the order of `sampler.epoch_order`."""

    def __init__(self, index: FaceStore, split: str, *, keep_groups: int) -> None:
        """
        Args:
            keep_groups: row groups of JPEGs (about 1.5 MB each) kept in memory; two windows of the plan are enough.
        """
        self._index = index
        self._groups = index.row_groups(split)
        self._jpegs = Loaded(self._load, keep_groups)

    def read(self, rows: Ints) -> Tensor:
        """Return crops (N, 112, 112, 3) uint8 RGB of rows (N,). Threads may read at the same time."""
        crops = np.empty((len(rows), CROP_SIZE_PX, CROP_SIZE_PX, 3), dtype=np.uint8)
        numbers = self._groups.of(rows)
        jpegs = {number: self._jpegs(number) for number in np.unique(numbers).tolist()}
        for out, row, number in zip(crops, rows.tolist(), numbers.tolist(), strict=True):
            group = self._groups[number]
            self._decode(jpegs[number][row - group.start].as_buffer(), out, group)
        return torch.from_numpy(crops)

    def prefetch(self, rows: Ints, share: float) -> None:
        """Start to load the row groups of rows (N,).

        Args:
            share: place of the group to begin with, 0 … 1. Processes of a node begin at different places, so each
                fetches a share of the groups that they all need.
        """
        numbers = np.unique(self._groups.of(rows))
        self._jpegs.prefetch(np.roll(numbers, -round(share * len(numbers))).tolist())

    def _load(self, number: int) -> pa.BinaryArray:
        return self._index.read(self._groups[number], ["image"])["image"].combine_chunks()

    def _decode(self, jpeg: pa.Buffer, out: np.ndarray, group: RowGroup) -> None:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None or image.shape != (CROP_SIZE_PX, CROP_SIZE_PX, 3):
            raise DatasetError(
                f"{group.store}/{group.file}, row group {group.group}: a crop is not a 112×112 JPEG; "
                "fix: delete the file, and run preprocess.py again"
            )
        out[...] = image


class LogMel(NamedTuple):
    """The log-mel spectrogram of one video."""

    mel: Tensor  # (64, M); M = 0 without audio
    start_s: float
    rate_hz: int

    def columns(self, time_s: Floats) -> Ints:
        """Return the column (…) at each media time; −1 without audio."""
        return columns(time_s, start_s=self.start_s, rate_hz=self.rate_hz, count=self.mel.shape[1])


class LogMelCache:
    """Spectrograms of the videos of one store, computed on demand; the last `KEPT_VIDEOS` stay in memory."""

    def __init__(self, index: FaceStore) -> None:
        self._index = index
        self.of = lru_cache(KEPT_VIDEOS)(self._load)  # by video_id

    def _load(self, video_id: str) -> LogMel:
        audio = self._index.audio(video_id)
        if audio is None:
            return LogMel(torch.zeros(N_MELS, 0), 0.0, 1)
        return LogMel(log_mel([audio.waveform], audio.rate_hz), audio.start_s, audio.rate_hz)

    def clips(self, videos: Sequence[str], time_s: Floats) -> tuple[Tensor, Tensor]:
        """Return the audio around clips: `mel` (B, 64, M), padded with zeros (the mean level), and `column` (B, S).

        Args:
            videos: video of each clip.
            time_s: (B, S) media time of each frame.
        """
        found = [self.of(video) for video in videos]
        each = [mel_slice(audio.mel, audio.columns(times)) for audio, times in zip(found, time_s, strict=True)]
        mel = torch.zeros(len(each), N_MELS, max(part.shape[-1] for part, _ in each))
        for row, (part, _) in zip(mel, each, strict=True):
            row[:, : part.shape[-1]] = part
        return mel, torch.from_numpy(np.stack([column for _, column in each]))
