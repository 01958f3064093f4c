"""Videos of an archive in Arrow columns, from which an object is made when it is asked for.

As Python objects, a million videos take several gigabytes, and comparing them takes minutes. In columns, they take a
few hundred bytes each and are compared in a second.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BATCH = 4096  # rows of which objects exist at a time

T = TypeVar("T")


class VideoRows(Mapping[str, T]):
    """Videos by video_id, in its order. A video that is removed keeps its row.

    Attributes:
        ids: the video_id of each row, sorted and unique.
    """

    def __init__(self, ids: pa.Array) -> None:
        self.ids = ids
        self._removed: set[str] = set()

    @abstractmethod
    def take(self, rows: np.ndarray) -> list[T]:
        """Return the videos of rows (n,), removed or not."""

    def __len__(self) -> int:
        return len(self.ids) - len(self._removed)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self.ids), BATCH):
            for video_id in self.ids.slice(first, BATCH).to_pylist():
                if video_id not in self._removed:
                    yield video_id

    def __contains__(self, video_id: object) -> bool:
        return self._row(video_id) is not None

    def __getitem__(self, video_id: str) -> T:
        row = self._row(video_id)
        if row is None:
            raise KeyError(video_id)
        return self.take(np.array([row]))[0]

    def pairs(self, rows: np.ndarray | None = None) -> Iterator[tuple[str, T]]:
        """Yield video_id and video of these rows (n,) or of all, without removed ones, faster than `items`."""
        rows = np.arange(len(self.ids)) if rows is None else rows
        for first in range(0, len(rows), BATCH):
            batch = rows[first : first + BATCH]
            for video_id, video in zip(self.ids.take(pa.array(batch)).to_pylist(), self.take(batch), strict=True):
                if video_id not in self._removed:
                    yield video_id, video

    def remove(self, video_id: str) -> None:
        """Remove a video, if it is there."""
        if video_id in self:
            self._removed.add(video_id)

    def pop(self, video_id: str) -> T:
        """Remove a video, and return it."""
        video = self[video_id]
        self.remove(video_id)
        return video

    def _row(self, video_id: object) -> int | None:
        if not isinstance(video_id, str) or video_id in self._removed:
            return None
        row = bisect_left(self.ids, video_id, key=pa.StringScalar.as_py)
        return row if row < len(self.ids) and self.ids[row].as_py() == video_id else None


class LazyList(Sequence[T]):
    """A sequence of objects that are made when they are asked for, because all of them take much memory."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        """Create the sequence. `make` returns the object at a position in 0 … `count` − 1."""
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> T: ...
    @overload
    def __getitem__(self, position: slice) -> list[T]: ...
    def __getitem__(self, position: int | slice) -> T | list[T]:
        found = range(self._count)[position]
        return self._make(found) if isinstance(found, int) else [self._make(each) for each in found]


def chained(first: Sequence[T], second: Sequence[T]) -> Sequence[T]:
    """Return the objects of both, without making them."""
    count = len(first)
    return LazyList(count + len(second), lambda n: first[n] if n < count else second[n - count])


def one_piece(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def mask(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a column of truth values as (n,) bool; null becomes False."""
    return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False), bool)


def order_of(ids: pa.Array) -> np.ndarray:
    """Return the rows (n,) in the order of their texts; of equal texts, in the order of their rows."""
    if len(ids) < 2 or pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py():
        return np.arange(len(ids))
    return pc.sort_indices(ids).to_numpy().astype(np.int64)


def rows_of(ids: pa.Array, wanted: pa.Array) -> np.ndarray:
    """Return the row (n,) of each wanted text among unique texts; −1 for one that is not there."""
    if ids.equals(wanted):
        return np.arange(len(ids))
    return pc.index_in(wanted, value_set=ids).fill_null(-1).to_numpy().astype(np.int64)


def first_equal(values: pa.Array) -> np.ndarray:
    """Return the first row (n,) with the same text as each row."""
    codes = values.dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return np.asarray(first[codes])


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Return rows (n,) of a table, each column in one piece. Consecutive rows share the memory of the table."""
    is_run = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all())
    if is_run and all(column.num_chunks == 1 for column in table.itercolumns()):
        return table.slice(rows[0], len(rows))
    if is_run and len(rows) == len(table):
        columns = [one_piece(column) for column in table.itercolumns()]
    else:
        indices = pa.array(rows)
        columns = [one_piece(column).take(indices) for column in table.itercolumns()]  # one whole copy at a time
    return pa.Table.from_arrays(columns, schema=table.schema)
