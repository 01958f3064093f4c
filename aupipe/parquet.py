"""Whole Parquet tables, read without Arrow's threads, and errors that name a damaged file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from aupipe.errors import DatasetError, one_line
from aupipe.storage import Storage


def read_parquet(source: bytes | BinaryIO, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns.

    Arrow's threads are not used. They can still hold a buffer of Python's when the interpreter ends, which would abort
    the process.

    Raises:
        pa.ArrowInvalid: the bytes are not Parquet.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return pq.ParquetFile(file).read(columns=None if columns is None else list(columns), use_threads=False)


def read_stored(storage: Storage, name: str) -> pa.Table:
    """Read a table of an output folder.

    Raises:
        DatasetError: the file is damaged.
    """
    data = storage.read(name)
    with damage_named(storage.path(name)):
        return read_parquet(data)


@contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Name the file in an error that its content causes in the block.

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        yield
    # Wrong JSON is a ValueError, or a KeyError or TypeError if it says something else; EOFError is of gzip.
    except (pa.ArrowException, ValueError, KeyError, TypeError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; Arrow's have no number
            raise
        raise DatasetError(
            f"{path} is damaged ({one_line(error)}); fix: restore the folder from a copy, or make it anew"
        ) from error
