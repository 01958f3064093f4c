"""Whole Parquet tables, read without Arrow's threads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(source: bytes | BinaryIO, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns.

    Arrow's threads are not used. They can still hold a buffer of Python's when the interpreter ends, which would abort
    the process.

    Raises:
        pa.ArrowInvalid: the bytes are not Parquet.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return pq.ParquetFile(file).read(columns=None if columns is None else list(columns), use_threads=False)
