"""The features that extraction stores for finalize: rows with embeddings, in parts of bounded size.

OUT/_work/observed/VIDEO.SEGMENT-00000[-last].parquet      a segment is complete if all its parts exist

They exist only between the two phases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache, partial

import numpy as np
import pyarrow as pa

from aupipe.annotation import schema
from aupipe.parquet import read_parquet
from aupipe.storage import Storage

FOLDER = "_work/observed"
_HELD_PARTS = 4  # of a video in memory, because the windows of a track lie in neighboring parts


def write(storage: Storage, segment_key: str, number: int, last: bool, rows: pa.Table) -> None:
    """Write a part of a segment."""
    storage.write(part_name(segment_key, number, last), schema.to_parquet(rows, schema.FEATURES))


def has_single_part(storage: Storage, segment_key: str) -> bool:
    """Return whether a segment is complete and has one part, without listing the files of other segments."""
    return storage.exists(part_name(segment_key, 0, True))


def segments(storage: Storage) -> dict[str, list[str]]:
    """Return the files of every complete segment, in order, by segment key."""
    parts: dict[str, list[str]] = {}
    for name in storage.names(FOLDER, ".parquet"):
        parts.setdefault(name[len(FOLDER) + 1 :].partition("-")[0], []).append(name)
    complete = {key: _complete(key, names) for key, names in parts.items()}
    return {key: names for key, names in complete.items() if names}


def delete(storage: Storage, video_keys: Iterable[str]) -> None:
    """Delete the features of these videos."""
    if names := storage.names(FOLDER):
        keys = set(video_keys)
        storage.delete_many([name for name in names if _video_key(name) in keys])


def delete_others(storage: Storage, video_keys: Iterable[str]) -> None:
    """Delete the features of all videos but these."""
    if names := storage.names(FOLDER):
        keys = set(video_keys)
        storage.delete_many([name for name in names if _video_key(name) not in keys])


def part_name(segment_key: str, number: int, last: bool) -> str:
    """Return the name of the file of a part."""
    return f"{FOLDER}/{segment_key}-{number:05d}{'-last' if last else ''}.parquet"


def _video_key(name: str) -> str:
    return name[len(FOLDER) + 1 :].partition(".")[0]


def _complete(key: str, names: Sequence[str]) -> list[str]:
    """Return the files from the first part to the last; none if one is missing.

    Other files are skipped, because a killed run may have split the segment differently.
    """
    for last in names:
        number, _, ending = last[len(f"{FOLDER}/{key}-") :].partition("-")
        if ending == "last.parquet":
            expected = [*(f"{FOLDER}/{key}-{part:05d}.parquet" for part in range(int(number))), last]
            return expected if set(expected) <= set(names) else []
    return []


class Embeddings:
    """The embeddings of a video; only a few parts are in memory at a time."""

    def __init__(self, storage: Storage, files: Sequence[str]) -> None:
        without = [field.name for field in schema.FEATURES if field.name != "embedding"]
        # The cache wraps no bound method, because a reference cycle would keep the videos of a group in memory until
        # Python collects garbage.
        part = lru_cache(_HELD_PARTS)(partial(_embeddings, storage, list(files)))
        self._set([_read(storage, name, without) for name in files], part)

    @classmethod
    def of_parts(cls, parts: Sequence[pa.Table]) -> Embeddings:
        """Return the embeddings of a video whose parts, tables of FEATURES in order, are in memory."""
        video = cls.__new__(cls)
        video._set(
            [part.drop_columns("embedding") for part in parts], [_by_row(p["embedding"]) for p in parts].__getitem__
        )
        return video

    def _set(self, parts: Sequence[pa.Table], part: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> None:
        self.rows = pa.concat_tables(parts)  # FEATURES of the whole video without embeddings, ordered by frame
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._part = part

    @cached_property
    def audio_time_s(self) -> np.ndarray:
        """(rows,) media time at which each row has sound; NaN: it has none. A crowd has thousands of tracks."""
        time_s = np.array(self.rows["time_s"].to_numpy(zero_copy_only=False))  # null becomes NaN
        restarted = np.logical_or.accumulate(self.rows["restart"].to_numpy(zero_copy_only=False))
        time_s[restarted] = np.nan  # `audio` ends where the clock restarts
        return time_s

    def of(self, rows: np.ndarray, first: int, width: int) -> Track:
        """Return columns `first` to `first + width` of the embeddings of rows (S,), ascending, all with status ok."""
        return Track(self, rows, slice(first, first + width))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings (n, E) float32 of rows (n,), ascending; n ≥ 1, because E is read from a part."""
        part = np.searchsorted(self._starts, rows, side="right") - 1
        chunks = []
        for number in np.unique(part).tolist():
            index, values = self._part(number)
            chunks.append(values[index[rows[part == number] - self._starts[number]]])
        return np.concatenate(chunks)


class Track:
    """(S, E) embeddings of one track, read a slice at a time."""

    def __init__(self, video: Embeddings, rows: np.ndarray, columns: slice) -> None:
        self._video, self._rows, self._columns = video, rows, columns

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        if not len(self._rows[rows]):
            return np.zeros((0, self._columns.stop - self._columns.start), np.float32)
        return self._video.take(self._rows[rows])[:, self._columns]


def _embeddings(storage: Storage, files: Sequence[str], number: int) -> tuple[np.ndarray, np.ndarray]:
    return _by_row(_read(storage, files[number], ["embedding"])["embedding"])


def _by_row(embeddings: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each row's embedding, and the embeddings (m, E), of a part."""
    column = embeddings.combine_chunks()
    has_embedding = column.is_valid().to_numpy(zero_copy_only=False)
    count = int(has_embedding.sum())
    flat = column.flatten().to_numpy()
    values = flat.reshape(count, len(flat) // max(count, 1))
    return np.cumsum(has_embedding) - 1, values


def _read(storage: Storage, name: str, columns: list[str]) -> pa.Table:
    with storage.open(name) as file:
        return read_parquet(file, columns)
