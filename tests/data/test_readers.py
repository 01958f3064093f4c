from collections.abc import Callable

import cv2
import numpy as np
import pyarrow as pa
import pytest

from aupipe.data.readers import CropReader
from aupipe.errors import DatasetError
from aupipe.facestore.read import FaceStore

pytestmark = pytest.mark.unit


def test_reads_rows_in_any_order_and_keeps_few_groups(make_store: Callable[..., str]) -> None:
    index = FaceStore.open(make_store(train=3, validation=1, frames=300))
    groups = index.row_groups("train")
    assert len(groups) == 4
    reader = CropReader(index, "train", keep_groups=2)
    jpegs = [j for group in groups for j in index.read(group, ["image"])["image"].to_pylist()]
    rows = np.array([899, 0, 256, 255, 511, 700])
    crops = reader.read(rows).numpy()
    for crop, row in zip(crops, rows, strict=True):
        assert np.array_equal(crop, cv2.imdecode(np.frombuffer(jpegs[row], np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    assert groups.of(rows).tolist() == [3, 0, 1, 0, 1, 2]
    assert len(reader._jpegs) == 2


def test_a_crop_that_is_no_jpeg_names_file_and_group(
    make_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = FaceStore.open(make_store(train=1, validation=1, frames=4))
    reader = CropReader(index, "train", keep_groups=1)
    monkeypatch.setattr(reader, "_jpegs", lambda number: pa.array([b"not a jpeg"] * 4, pa.binary()))
    with pytest.raises(DatasetError, match=r"split=train/.*row group 0"):
        reader.read(np.array([1]))


def test_a_crop_of_an_added_store_that_is_no_jpeg_names_that_store(
    make_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = (FaceStore.open(make_store(train=1, frames=4, prefix=prefix)) for prefix in ("a-", "b-"))
    reader = CropReader(own.with_extra_stores([other]), "train", keep_groups=1)
    monkeypatch.setattr(reader, "_jpegs", lambda number: pa.array([b"not a jpeg"] * 4, pa.binary()))
    with pytest.raises(DatasetError, match=f"^{other.storage.root}/split=train/"):
        reader.read(np.array([5]))
