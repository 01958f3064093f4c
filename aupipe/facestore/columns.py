"""Arrow columns with one array per row, such as one number for each AU, converted from and to NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aupipe.arrays import Labels


def from_arrays(values: npt.NDArray[np.generic] | None, kind: pa.FixedSizeListType, count: int) -> pa.Array:
    """Return a column of `count` arrays: values (count, W) as `kind`, or nulls if values is None."""
    if values is None:
        return pa.nulls(count, kind)
    whole = np.ascontiguousarray(values, kind.value_type.to_pandas_dtype()).reshape(count, kind.list_size)
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), kind.list_size)


def to_arrays(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return the values (rows, W) of a column without nulls."""
    return column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)


def labels(table: pa.Table) -> Labels:
    """Return the `au` column as (rows, 12) int8: 0, 1, −1."""
    return to_arrays(table["au"])


def intensities(table: pa.Table) -> npt.NDArray[np.float32] | None:
    """Return the `intensity` column as (rows, 12) float32; None unless every row has intensities."""
    column = table["intensity"]
    return None if column.null_count else to_arrays(column)
