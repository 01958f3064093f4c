"""The sound of a video for models that listen: its log-mel spectrogram, left once a video, read as windows need it.

OUT/_work/observed/VIDEO.sound-00000[-last].parquet      a row a column of the spectrogram, in decibels; it lies beside
                                                         the embeddings, is there when all parts are, and goes with them
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from aupipe.annotation.features import FOLDER
from aupipe.errors import SoundLostError, as_reason
from aupipe.media.audio import AudioBlock, audio
from aupipe.media.mel import COLUMNS_PER_PIECE, N_MELS, columns, decibels, normalized
from aupipe.storage import Storage

_PIECES_PER_PART = 3  # about a minute: what bounds a worker's memory
_HELD_PIECES = 4


def audio_key(video_key: str) -> str:
    """Under which `observed.segments` lists the sound of a video."""
    return f"{video_key}.sound"


def write_log_mel(storage: Storage, video_key: str, uri: str) -> None:
    """Write the spectrogram of a video; with no columns where it has no sound, with the reason where it breaks off."""
    heard = _ReadableAudio(uri)
    first = next(heard.blocks, None)
    said = {"start_s": repr(first.start_s if first else 0.0), "rate_hz": str(first.rate_hz if first else 1)}
    loudest_db = -np.inf
    held: list[Tensor] = []
    number = 0
    for piece in decibels(_samples(first, heard.blocks), first.rate_hz) if first else ():
        if len(held) == _PIECES_PER_PART:
            storage.write(f"{FOLDER}/{audio_key(video_key)}-{number:05d}.parquet", _part(held, said))
            held, number = [], number + 1
        held.append(piece)
        loudest_db = max(loudest_db, float(piece.max()))
    said |= {"reason": heard.reason, "loudest_db": repr(loudest_db)}
    storage.write(f"{FOLDER}/{audio_key(video_key)}-{number:05d}-last.parquet", _part(held, said))


class LogMelReader:
    """A spectrogram (64, M) of which `[:, a:b]` is read as it is needed.

    Attributes:
        reason: why it breaks off, "" if it does not.
    """

    def __init__(self, storage: Storage, files: Sequence[str]) -> None:
        with storage.open(files[-1]) as file:
            last = pq.ParquetFile(file)
            said = {name.decode(): value.decode() for name, value in last.schema_arrow.metadata.items()}
            self._count = (len(files) - 1) * _PIECES_PER_PART * COLUMNS_PER_PIECE + last.metadata.num_rows
        self._start_s, self._rate_hz, self.reason = float(said["start_s"]), int(said["rate_hz"]), said["reason"]
        # Of no bound method, see `observed.Embeddings`.
        self._piece = lru_cache(_HELD_PIECES)(partial(_normalized, storage, files, float(said["loudest_db"])))

    def columns(self, time_s: np.ndarray) -> np.ndarray:
        """The column at each media time (S,), −1 where there is no sound or no time."""
        return columns(time_s, start_s=self._start_s, rate_hz=self._rate_hz, count=self._count)

    def __getitem__(self, at: tuple[slice, slice], /) -> Tensor:
        low, high, _ = at[1].indices(self._count)
        pieces = range(low // COLUMNS_PER_PIECE, -(-high // COLUMNS_PER_PIECE))
        if not pieces:
            return torch.zeros(N_MELS, 1)[at[0]]  # a model that listens is given silence, and −1 for every frame
        offset = pieces[0] * COLUMNS_PER_PIECE
        return torch.cat([self._piece(number) for number in pieces], dim=1)[at[0], low - offset : high - offset]


class _ReadableAudio:
    """The blocks of a video's sound, up to where it cannot be read."""

    def __init__(self, uri: str) -> None:
        self.reason = ""
        self.blocks = self._blocks(uri)

    def _blocks(self, uri: str) -> Iterator[AudioBlock]:
        try:
            yield from audio(uri)
        except (av.error.FFmpegError, SoundLostError) as error:
            self.reason = f"{SoundLostError.reason}: {as_reason(error)}"


def _normalized(storage: Storage, files: Sequence[str], loudest_db: float, number: int) -> Tensor:
    """Piece `number` of a spectrogram."""
    part, piece = divmod(number, _PIECES_PER_PART)
    with storage.open(files[part]) as file:
        column = pq.ParquetFile(file).read_row_group(piece)["decibels"].combine_chunks()
    values = column.flatten().to_numpy().reshape(len(column), -1, N_MELS)
    return normalized(torch.from_numpy(values.transpose(1, 2, 0).copy()), loudest_db)


def _samples(first: AudioBlock, rest: Iterator[AudioBlock]) -> Iterator[np.ndarray]:
    yield first.samples
    for block in rest:
        yield block.samples


def _part(pieces: Sequence[Tensor], said: dict[str, str]) -> bytes:
    """A row group for each piece (channels, 64, m)."""
    whole = torch.cat([*pieces], dim=2).permute(2, 0, 1) if pieces else torch.zeros(0, 1, N_MELS)
    width = whole.shape[1] * N_MELS
    column = pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1).numpy()), width)
    table = pa.table({"decibels": column}).replace_schema_metadata(said)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=COLUMNS_PER_PIECE, use_dictionary=False)
    return sink.getvalue()
