import numpy as np
import pytest

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.facestore import columns, shard_reader, write
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import StoreHeader
from aupipe.storage import Storage

from .conftest import HEADER

pytestmark = pytest.mark.unit


def test_the_card_counts_the_stored_rows(tmp_path, build_store, tables):
    index = build_store(tmp_path)
    au = np.concatenate([columns.labels(t) for split, tables in tables if split == "train" for t in tables])
    train = index.card.splits["train"]
    assert (train.videos, train.rows, train.au_rows) == (3, 712, (au >= 0).any(axis=1).sum())
    assert train.au_valid == {name: int((au[:, i] >= 0).sum()) for i, name in enumerate(facs.AUS)}
    assert train.au_positives == {name: int((au[:, i] == 1).sum()) for i, name in enumerate(facs.AUS)}
    assert index.card.positive_rates["AU06"] == pytest.approx((au[:, 3] == 1).sum() / (au[:, 3] >= 0).sum())
    expression = np.concatenate([t["expression"] for split, tables in tables if split == "train" for t in tables])
    assert train.expressions == tuple(int((expression == c).sum()) for c in range(8))
    assert index.card.dropped == {"au.no_crop": 6}
    assert index.card.annotations == {"au.rows": 15, "au.kept": 9, "au.no_crop": 6}
    assert index.card.mismatches == {"video": {"au.no_crop": 6}}
    assert index.template.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]


def test_a_shard_always_has_the_same_bytes(tables):
    def one():
        shard = write.ShardWriter()
        shard.add(tables[0][1][2])
        return shard.finish()

    assert one() == one()


def test_shards_that_are_not_in_the_card_are_deleted(tmp_path, build_store):
    storage = Storage(tmp_path)
    storage.write("split=train/00009-old.parquet", b"old")
    build_store(tmp_path)
    assert not storage.exists("split=train/00009-old.parquet")


def test_an_empty_split_is_reported_with_the_reasons(tmp_path):
    storage = Storage(tmp_path)
    shard = write.ShardWriter()
    shard.count_outcomes("video", {"au.rows": 4, "au.no_crop": 4})
    name = write.shard_name("train", 0, "key")
    storage.write(name, shard.finish())
    header = StoreHeader(
        edition="abaw5", source="test", license="", template=((0, 0),) * 5, template_source="assumed",
        n_expressions=8, settings={},
    )  # fmt: skip
    with pytest.raises(DatasetError, match=r"the train split is empty.*au\.no_crop 4"):
        write.finish(storage, header, [name])
    assert not storage.exists("store.json")


def test_a_job_whose_rows_were_all_dropped_leaves_the_store_before_it(tmp_path, build_store):
    index = build_store(tmp_path)
    rows = index.labels("train")
    name = write.shard_name("train", 0, "other settings")
    index.storage.write(name, write.ShardWriter().finish())
    with pytest.raises(DatasetError, match="the train split is empty"):
        write.finish(index.storage, HEADER, [name])
    shard_reader._metadata.cache_clear()
    assert FaceStore.open(str(tmp_path)).labels("train").equals(rows)
