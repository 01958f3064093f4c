"""Crops of a store by row number, decoded; the row groups that were read last stay in memory as JPEG."""

from __future__ import annotations

from collections import OrderedDict

import cv2
import numpy as np
import torch
from torch import Tensor

from aupipe.errors import DatasetError
from aupipe.facestore.read import RowGroup, StoreIndex
from aupipe.facestore.schema import CROP_SIZE_PX
from aupipe.learning.metrics import Ints


class CropReader:
    """Reads the crops of one split. Made for the access pattern of `sampling.epoch_order`."""

    def __init__(self, index: StoreIndex, split: str, *, keep_groups: int) -> None:
        """`keep_groups` row groups (about 1.5 MB each) stay in memory; two windows of the plan are enough."""
        self._index = index
        self._groups = index.row_groups(split)
        self._starts = np.array([group.start for group in self._groups], dtype=np.int64)
        self._keep = keep_groups
        self._cache: OrderedDict[int, list[bytes]] = OrderedDict()

    def group_of(self, rows: Ints) -> Ints:
        """The number of the row group (N,) of each row (N,)."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def read(self, rows: Ints) -> Tensor:
        """Crops (N, 112, 112, 3) uint8 RGB of rows (N,)."""
        crops = np.empty((len(rows), CROP_SIZE_PX, CROP_SIZE_PX, 3), dtype=np.uint8)
        for out, row, number in zip(crops, rows, self.group_of(rows), strict=True):
            jpegs = self._jpegs(int(number))
            out[...] = self._decode(jpegs[row - self._starts[number]], self._groups[number])
        return torch.from_numpy(crops)

    def _jpegs(self, number: int) -> list[bytes]:
        if number not in self._cache:
            table = self._index.read(self._groups[number], ["image"])
            self._cache[number] = table["image"].to_pylist()
            if len(self._cache) > self._keep:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]

    def _decode(self, jpeg: bytes, group: RowGroup) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None or image.shape != (CROP_SIZE_PX, CROP_SIZE_PX, 3):
            where = self._index.storage.path(group.file)
            raise DatasetError(f"{where}, row group {group.group}: a crop is no 112×112 JPEG; run preprocess.py again")
        return image
