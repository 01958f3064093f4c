"""Columns that hold an array a row, such as one number for each AU: arrays in, and out again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aupipe import facs


def of_arrays(values: npt.NDArray[np.generic] | None, kind: pa.FixedSizeListType, count: int) -> pa.Array:
    """A column of `count` arrays: values (count, W) as `kind`, or nulls where there are none."""
    if values is None:
        return pa.nulls(count, kind)
    flat = pa.array(np.ascontiguousarray(values, kind.value_type.to_pandas_dtype()).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)


def labels(table: pa.Table) -> npt.NDArray[np.int8]:
    """The `au` column as (rows, 12) int8: 0, 1, −1."""
    flat = table["au"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.int8).reshape(-1, len(facs.AUS))


def intensities(table: pa.Table) -> npt.NDArray[np.float32] | None:
    """The `intensity` column as (rows, 12) float32; None where nobody says."""
    column = table["intensity"].combine_chunks()
    if column.null_count:
        return None
    return np.asarray(column.flatten().to_numpy(), dtype=np.float32).reshape(-1, len(facs.AUS))
