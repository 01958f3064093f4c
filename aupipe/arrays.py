"""Types of NumPy arrays, defined once. Shapes and units are stated where an array is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int8]  # 1 present, 0 absent, `facs.UNKNOWN` (-1) not annotated

# Meshes and pictures are float32 with int32 indices; some intermediate results are float64.
AnyFloats = npt.NDArray[np.floating[Any]]
Ints32 = npt.NDArray[np.int32]
