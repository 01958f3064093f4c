"""Columns that hold an array a row, such as one number for each AU: arrays in, and out again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def of_arrays(values: npt.NDArray[np.generic] | None, kind: pa.FixedSizeListType, count: int) -> pa.Array:
    """A column of `count` arrays: values (count, W) as `kind`, or nulls where there are none."""
    if values is None:
        return pa.nulls(count, kind)
    whole = np.ascontiguousarray(values, kind.value_type.to_pandas_dtype()).reshape(count, kind.list_size)
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), kind.list_size)


def to_arrays(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """(rows, W) of a column without nulls."""
    return column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)


def labels(table: pa.Table) -> npt.NDArray[np.int8]:
    """The `au` column as (rows, 12) int8: 0, 1, −1."""
    return to_arrays(table["au"])


def intensities(table: pa.Table) -> npt.NDArray[np.float32] | None:
    """The `intensity` column as (rows, 12) float32; None unless every row has them."""
    column = table["intensity"]
    return None if column.null_count else to_arrays(column)
