"""Reading of shards: a row group's column, or columns of all rows. Threads may read at the same time.

A remote read is one request for exactly its bytes, and its result is kept on the node's disk. The names of shards and
of embedding folders identify their content, so a copy never becomes outdated.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from aupipe.errors import DatasetError
from aupipe.facestore.node_copies import node_copies
from aupipe.parquet import damage_named
from aupipe.storage import Storage


def parquet(storage: Storage, name: str) -> pq.ParquetFile:
    """Return an open file. Its metadata is read only once per process.

    Raises:
        DatasetError: as `shard_named`.
    """
    with shard_named(storage, name):
        return _open(storage, name, _metadata(storage.root, name))


@contextmanager
def shard_named(storage: Storage, name: str) -> Iterator[None]:
    """Name the shard in an error that its content or absence causes in the block.

    Raises:
        DatasetError: the shard is missing, as after an incomplete copy of the store, or damaged.
    """
    try:
        with damage_named(storage.path(name)):
            yield
    except FileNotFoundError:
        raise DatasetError(
            f"{storage.path(name)} is missing; fix: copy the folder again, or re-run the command that made it"
        ) from None


def read_group(storage: Storage, name: str, group: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a row group of a shard, with all columns or the given ones.

    Raises:
        DatasetError: as `shard_named`.
    """

    def fetch() -> pa.Table:
        chosen = None if columns is None else list(columns)
        with shard_named(storage, name):
            return parquet(storage, name).read_row_group(group, columns=chosen, use_threads=False)

    return (
        fetch()
        if storage.local
        else node_copies().table(repr((storage.path(name), group, columns and tuple(columns))), fetch)
    )


def read_columns(storage: Storage, name: str, columns: Sequence[str]) -> pa.Table:
    """Return columns of all rows of a shard.

    Raises:
        DatasetError: as `shard_named`.
    """

    def fetch() -> pa.Table:
        with shard_named(storage, name):
            return parquet(storage, name).read(columns=list(columns), use_threads=False)

    return fetch() if storage.local else node_copies().table(repr((storage.path(name), tuple(columns))), fetch)


@functools.lru_cache(maxsize=16)
def storage_of(root: str) -> Storage:
    """Return the storage of a root, the same object each time, because one that has answered repeats failed reads."""
    return Storage(root)


@functools.lru_cache(maxsize=256)
def _size(root: str, name: str) -> int:
    return storage_of(root).size(name)


@functools.lru_cache(maxsize=256)
def _metadata(root: str, name: str) -> pq.FileMetaData:
    return _open(storage_of(root), name, None).metadata


def _open(storage: Storage, name: str, metadata: pq.FileMetaData | None) -> pq.ParquetFile:
    if storage.local:
        return pq.ParquetFile(storage.path(name), metadata=metadata, memory_map=True)
    # `pre_buffer` joins the adjacent columns of a read.
    return pq.ParquetFile(_RemoteFile(storage, name), metadata=metadata, pre_buffer=True)


class _RemoteFile(io.RawIOBase):
    """A remote file without read-ahead: each read is one request, repeated while the storage is busy."""

    def __init__(self, storage: Storage, name: str) -> None:
        super().__init__()
        self._storage, self._name, self._position = storage, name, 0
        self._size = _size(storage.root, name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self._position, 0)
        count = left if size is None or size < 0 else min(size, left)
        if not count:
            return b""
        data = self._storage.read_range(self._name, self._position, self._position + count)
        self._position += len(data)
        return data
