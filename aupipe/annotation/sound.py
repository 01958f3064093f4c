"""The sound of a video for models that listen: its log-mel spectrogram, left once a video, read as windows need it.

OUT/_work/observed/VIDEO.sound.parquet      a row a column of the spectrogram; deleted with the embeddings
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from aupipe.annotation.observed import FOLDER
from aupipe.errors import SoundLostError
from aupipe.media.audio import AudioBlock, audio
from aupipe.media.mel import N_MELS, columns, log_mel
from aupipe.storage import Storage

_COLUMNS_PER_GROUP = 4096  # about 20 s
_HELD_GROUPS = 4


def name_of(video_key: str) -> str:
    """The file of a video's sound."""
    return f"{FOLDER}/{video_key}.sound.parquet"


def leave(storage: Storage, video_key: str, uri: str) -> None:
    """Write the spectrogram of a video; with no columns where it has no sound, with the reason where it breaks off."""
    heard = _Heard(uri)
    first = next(heard.blocks, None)
    mel = torch.zeros(N_MELS, 0)
    if first is not None:
        mel = log_mel(_samples(first, heard.blocks), first.rate_hz)
    values = np.ascontiguousarray(mel.numpy().T)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), N_MELS)
    said = {
        "start_s": repr(first.start_s if first else 0.0), "rate_hz": str(first.rate_hz if first else 1),
        "reason": heard.reason,
    }  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"mel": column}).replace_schema_metadata(said), sink, compression="zstd",
        row_group_size=_COLUMNS_PER_GROUP,
    )  # fmt: skip
    storage.write(name_of(video_key), sink.getvalue())


class Sound:
    """A spectrogram (64, M) of which `[:, a:b]` is read as it is needed.

    Attributes:
        reason: why it breaks off, "" if it does not.
    """

    def __init__(self, storage: Storage, video_key: str) -> None:
        self._storage, self._name = storage, name_of(video_key)
        with storage.open(self._name) as file:
            parquet = pq.ParquetFile(file)
            said = {name.decode(): value.decode() for name, value in parquet.schema_arrow.metadata.items()}
            self._count = parquet.metadata.num_rows
        self._start_s, self._rate_hz, self.reason = float(said["start_s"]), int(said["rate_hz"]), said["reason"]
        self._group = lru_cache(_HELD_GROUPS)(self._read)

    def columns(self, time_s: np.ndarray) -> np.ndarray:
        """The column at each media time (S,), −1 where there is no sound or no time."""
        return columns(time_s, start_s=self._start_s, rate_hz=self._rate_hz, count=self._count)

    def __getitem__(self, at: tuple[slice, slice], /) -> Tensor:
        low, high, _ = at[1].indices(self._count)
        groups = range(low // _COLUMNS_PER_GROUP, -(-high // _COLUMNS_PER_GROUP))
        if not groups:
            return torch.zeros(N_MELS, 1)[at[0]]  # a model that listens is given silence, and −1 for every frame
        offset = groups[0] * _COLUMNS_PER_GROUP
        return torch.cat([self._group(number) for number in groups], dim=1)[at[0], low - offset : high - offset]

    def _read(self, number: int) -> Tensor:
        with self._storage.open(self._name) as file:
            values = pq.ParquetFile(file).read_row_group(number)["mel"].combine_chunks().flatten().to_numpy()
        return torch.from_numpy(values.reshape(-1, N_MELS).T.copy())


class _Heard:
    """The blocks of a video's sound, up to where it cannot be read."""

    def __init__(self, uri: str) -> None:
        self.reason = ""
        self.blocks = self._blocks(uri)

    def _blocks(self, uri: str) -> Iterator[AudioBlock]:
        try:
            yield from audio(uri)
        except (av.error.FFmpegError, SoundLostError) as error:
            self.reason = f"{SoundLostError.reason}: {' '.join(str(error).split())}"


def _samples(first: AudioBlock, rest: Iterator[AudioBlock]) -> Iterator[np.ndarray]:
    yield first.samples
    for block in rest:
        yield block.samples
