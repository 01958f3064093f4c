"""What observe leaves for finalize, between the two phases only: rows with embeddings, in parts of bounded size.

OUT/_work/observed/VIDEO.SEGMENT-00000[-last].parquet      each file commits itself; a segment is there when all are
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from aupipe.annotation import schema
from aupipe.storage import Storage

FOLDER = "_work/observed"
_HELD_PARTS = 4  # of a video in memory; windows of a track lie in neighboring parts


def write(storage: Storage, segment_key: str, number: int, last: bool, rows: pa.Table) -> None:
    """Leave a part of a segment."""
    name = f"{FOLDER}/{segment_key}-{number:05d}{'-last' if last else ''}.parquet"
    storage.write(name, schema.to_parquet(rows, schema.FEATURES))


def segments(storage: Storage) -> dict[str, list[str]]:
    """The files of every segment that is there whole, in order, by segment key."""
    parts: dict[str, list[str]] = {}
    for name in storage.names(FOLDER, ".parquet"):
        parts.setdefault(name[len(FOLDER) + 1 :].partition("-")[0], []).append(name)
    whole = {key: _whole(key, names) for key, names in parts.items()}
    return {key: names for key, names in whole.items() if names}


def delete(storage: Storage, video_keys: Collection[str]) -> None:
    """Delete what there is of these videos."""
    for name in storage.names(FOLDER):
        if name[len(FOLDER) + 1 :].partition(".")[0] in video_keys:
            storage.delete(name)


def delete_all(storage: Storage) -> None:
    """Delete what there is, of whatever video."""
    for name in storage.names(FOLDER):
        storage.delete(name)


def _whole(key: str, names: Sequence[str]) -> list[str]:
    """The files from the first part to the last one; none where one is missing.

    A file beside them is passed over: a run that was killed may have cut the segment elsewhere.
    """
    for last in names:
        number, _, ending = last[len(f"{FOLDER}/{key}-") :].partition("-")
        if ending == "last.parquet":
            wanted = [*(f"{FOLDER}/{key}-{part:05d}.parquet" for part in range(int(number))), last]
            return wanted if set(wanted) <= set(names) else []
    return []


class Embeddings:
    """The embeddings of a video, of which only a few parts are in memory at a time."""

    def __init__(self, storage: Storage, files: Sequence[str]) -> None:
        self._files = list(files)
        without = [field.name for field in schema.FEATURES if field.name != "embedding"]
        parts = [_read(storage, name, without) for name in self._files]
        self.rows = pa.concat_tables(parts)  # FEATURES of the whole video, ordered by frame, without the embeddings
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        # Of no bound method: a reference cycle would keep a group's videos in memory until Python collects garbage.
        self._part = lru_cache(_HELD_PARTS)(partial(_embeddings, storage))

    def of(self, rows: np.ndarray, first: int, width: int) -> Track:
        """Numbers `first` to `first + width` of the embeddings of some rows (S,), ascending, all with status ok."""
        return Track(self, rows, slice(first, first + width))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, E) float32 of rows (n,), ascending; n ≥ 1, since only a part that is read tells E."""
        part = np.searchsorted(self._starts, rows, side="right") - 1
        found = []
        for number in np.unique(part).tolist():
            place, values = self._part(self._files[number])
            found.append(values[place[rows[part == number] - self._starts[number]]])
        return np.concatenate(found)


class Track:
    """(S, E) embeddings of one track, read a slice at a time."""

    def __init__(self, video: Embeddings, rows: np.ndarray, columns: slice) -> None:
        self._video, self._rows, self._columns = video, rows, columns

    def __getitem__(self, rows: slice, /) -> Tensor:
        if not len(self._rows[rows]):
            return torch.zeros(0, self._columns.stop - self._columns.start)
        return torch.from_numpy(np.ascontiguousarray(self._video.take(self._rows[rows])[:, self._columns]))


def _embeddings(storage: Storage, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of a part: which embedding each row has, and the embeddings (m, E)."""
    column = _read(storage, name, ["embedding"])["embedding"].combine_chunks()
    there = column.is_valid().to_numpy(zero_copy_only=False)
    count = int(there.sum())
    flat = column.flatten().to_numpy()
    values = flat.reshape(count, len(flat) // max(count, 1))
    return np.cumsum(there) - 1, values


def _read(storage: Storage, name: str, columns: list[str]) -> pa.Table:
    with storage.open(name) as file:
        return pq.read_table(file, columns=columns)
