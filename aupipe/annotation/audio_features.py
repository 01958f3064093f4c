"""The log-mel spectrogram of a video for audio-visual models: written once per video, read window by window.

OUT/_work/observed/VIDEO.sound-00000[-last].parquet      one row per column of the spectrogram, in decibels

The files lie beside the embeddings and are deleted with them. A spectrogram is complete if all its parts exist.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aupipe.annotation.features import FOLDER
from aupipe.errors import AudioLostError, as_reason
from aupipe.media.audio import AudioBlock, audio
from aupipe.media.mel import COLUMNS_PER_PIECE, N_MELS, columns, decibels, normalized
from aupipe.storage import Storage

if TYPE_CHECKING:
    from torch import Tensor

# Part of the cache key of every model that uses audio. Change it when the same file gives another spectrogram.
METHOD = 2
_PIECES_PER_PART = 3  # about one minute, which bounds the memory of a worker
_HELD_PIECES = 4


def audio_key(video_key: str) -> str:
    """Return the key under which `features.segments` lists the spectrogram of a video."""
    return f"{video_key}.sound"


def write_log_mel(storage: Storage, video_key: str, uri: str) -> None:
    """Write the spectrogram of a video.

    It has no columns if the video has no sound, and it holds the reason if the sound ends early.
    """
    readable = _ReadableAudio(uri)
    first = next(readable.blocks, None)
    metadata = {"start_s": repr(first.start_s if first else 0.0), "rate_hz": str(first.rate_hz if first else 1)}
    loudest_db = -np.inf
    held: list[Tensor] = []
    number = 0
    for piece in decibels(_samples(first, readable.blocks), first.rate_hz) if first else ():
        if len(held) == _PIECES_PER_PART:
            storage.write(f"{FOLDER}/{audio_key(video_key)}-{number:05d}.parquet", _part(held, metadata))
            held, number = [], number + 1
        held.append(piece)
        loudest_db = max(loudest_db, float(piece.max()))
    metadata |= {"reason": readable.reason, "loudest_db": repr(loudest_db)}
    storage.write(f"{FOLDER}/{audio_key(video_key)}-{number:05d}-last.parquet", _part(held, metadata))


class LogMelReader:
    """A spectrogram (64, M) that reads the slice `[:, a:b]` on demand.

    Attributes:
        reason: why it ends early; "" if it does not.
    """

    def __init__(self, storage: Storage, files: Sequence[str]) -> None:
        with storage.open(files[-1]) as file:
            last = pq.ParquetFile(file)
            metadata = {name.decode(): value.decode() for name, value in last.schema_arrow.metadata.items()}
            self._count = (len(files) - 1) * _PIECES_PER_PART * COLUMNS_PER_PIECE + last.metadata.num_rows
        self._start_s, self._rate_hz, self.reason = (
            float(metadata["start_s"]),
            int(metadata["rate_hz"]),
            metadata["reason"],
        )
        # The cache wraps no bound method, for the reason given in `features.Embeddings`.
        self._piece = lru_cache(_HELD_PIECES)(partial(_normalized, storage, files, float(metadata["loudest_db"])))

    def columns(self, time_s: np.ndarray) -> np.ndarray:
        """Return the column at each media time (S,), −1 where there is no sound or no time."""
        return columns(time_s, start_s=self._start_s, rate_hz=self._rate_hz, count=self._count)

    def __getitem__(self, index: tuple[slice, slice], /) -> Tensor:
        import torch  # here and below, because models that use no audio may run without torch

        low, high, _ = index[1].indices(self._count)
        pieces = range(low // COLUMNS_PER_PIECE, -(-high // COLUMNS_PER_PIECE))
        if not pieces:
            return torch.zeros(N_MELS, 1)[index[0]]  # silence; the column of every frame is −1
        offset = pieces[0] * COLUMNS_PER_PIECE
        return torch.cat([self._piece(number) for number in pieces], dim=1)[index[0], low - offset : high - offset]


class _ReadableAudio:
    """The audio blocks of a video up to the first error. `reason`: that error; "" if there is none."""

    def __init__(self, uri: str) -> None:
        self.reason = ""
        self.blocks = self._blocks(uri)

    def _blocks(self, uri: str) -> Iterator[AudioBlock]:
        try:
            yield from audio(uri)
        except (av.error.FFmpegError, AudioLostError) as error:
            self.reason = f"{AudioLostError.reason}: {as_reason(error)}"


def _normalized(storage: Storage, files: Sequence[str], loudest_db: float, number: int) -> Tensor:
    """Return piece `number` of a spectrogram."""
    import torch

    part, piece = divmod(number, _PIECES_PER_PART)
    with storage.open(files[part]) as file:
        column = pq.ParquetFile(file).read_row_group(piece)["decibels"].combine_chunks()
    values = column.flatten().to_numpy().reshape(len(column), -1, N_MELS)
    return normalized(torch.from_numpy(values.transpose(1, 2, 0).copy()), loudest_db)


def _samples(first: AudioBlock, rest: Iterator[AudioBlock]) -> Iterator[np.ndarray]:
    yield first.samples
    for block in rest:
        yield block.samples


def _part(pieces: Sequence[Tensor], metadata: dict[str, str]) -> bytes:
    """Return a Parquet file with one row group per piece (channels, 64, m)."""
    import torch

    whole = torch.cat([*pieces], dim=2).permute(2, 0, 1) if pieces else torch.zeros(0, 1, N_MELS)
    width = whole.shape[1] * N_MELS
    column = pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1).numpy()), width)
    table = pa.table({"decibels": column}).replace_schema_metadata(metadata)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=COLUMNS_PER_PIECE, use_dictionary=False)
    return sink.getvalue()
