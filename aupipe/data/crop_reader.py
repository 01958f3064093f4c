"""Crops of a store by row number, decoded; the row groups that were read last stay in memory as JPEG."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from aupipe.arrays import Ints
from aupipe.errors import DatasetError
from aupipe.faces import CROP_SIZE_PX
from aupipe.facestore.read import FaceStore, RowGroup


class CropReader:
    """Reads the crops of one split. Made for the access pattern of `sampling.epoch_order`."""

    def __init__(self, index: FaceStore, split: str, *, keep_groups: int) -> None:
        """`keep_groups` row groups (about 1.5 MB each) stay in memory; two windows of the plan are enough."""
        self._index = index
        self._groups = index.row_groups(split)
        self._jpegs = lru_cache(keep_groups)(self._load)

    def read(self, rows: Ints) -> Tensor:
        """Crops (N, 112, 112, 3) uint8 RGB of rows (N,)."""
        crops = np.empty((len(rows), CROP_SIZE_PX, CROP_SIZE_PX, 3), dtype=np.uint8)
        for out, row, number in zip(crops, rows, self._groups.of(rows).tolist(), strict=True):
            group = self._groups[number]
            out[...] = self._decode(self._jpegs(number)[row - group.start], group)
        return torch.from_numpy(crops)

    def _load(self, number: int) -> list[bytes]:
        jpegs: list[bytes] = self._index.read(self._groups[number], ["image"])["image"].to_pylist()
        return jpegs

    def _decode(self, jpeg: bytes, group: RowGroup) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None or image.shape != (CROP_SIZE_PX, CROP_SIZE_PX, 3):
            where = self._index.storage.path(group.file)
            raise DatasetError(f"{where}, row group {group.group}: a crop is no 112×112 JPEG; run preprocess.py again")
        return image
