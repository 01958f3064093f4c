import numpy as np
import pytest

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.facestore import read, write
from aupipe.facestore.schema import StoreHeader
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

HEADER = StoreHeader(
    edition="abaw5", source="affwild2:crops", licence="test", template=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10)),
    template_source="measured", n_expressions=8, settings={"leak": "off"},
)  # fmt: skip


def track(video_id, person, count, seed, time_s=None):
    random = np.random.default_rng(seed)
    return write.rows(
        video_id=video_id,
        person=person,
        frames=np.arange(1, 2 * count, 2),
        images=[random.bytes(20) for _ in range(count)],
        au=random.integers(-1, 2, (count, 12)),
        expression=random.integers(-1, 8, count),
        time_s=time_s,
        source="affwild2:crops",
    )


def build(root, tables):
    storage = Storage(root)
    names = []
    for ordinal, (split, table) in enumerate(tables):
        part = write.PartBuilder()
        for one in table:
            part.add(one)
        part.tally("video", {"au.rows": 5, "au.kept": 3, "au.no_crop": 2})
        names.append(write.part_name(split, ordinal, str(ordinal)))
        storage.write(names[-1], part.finish())
    write.finish(storage, HEADER, names)
    return read.StoreIndex.open(str(root))


TABLES = (
    ("train", [track("a", "", 300, 0), track("b", "left", 5, 1, np.linspace(0, 1, 5)), track("b", "right", 400, 2)]),
    ("train", [track("c", "", 7, 3)]),
    ("validation", [track("d", "", 10, 4)]),
)


def test_rows_come_back_in_order(tmp_path):
    index = build(tmp_path, TABLES)
    groups = index.row_groups("train")
    assert [(g.group, g.start, g.rows) for g in groups] == [(0, 0, 256), (1, 256, 256), (2, 512, 193), (0, 705, 7)]
    assert groups[0].tracks == (("a", ""),)
    assert groups[1].tracks == (("a", ""), ("b", "left"), ("b", "right"))
    assert groups[1].video_ids == ("a", "b")
    together = [row for g in groups for row in index.read(g).to_pylist()]
    assert together == [row for split, tables in TABLES if split == "train" for t in tables for row in t.to_pylist()]
    assert index.read(groups[2], ["frame"]).column_names == ["frame"]


def test_labels_have_no_images_and_the_numbers_of_the_split(tmp_path):
    index = build(tmp_path, TABLES)
    table = index.labels("train")
    assert table.num_rows == index.rows("train") == 712
    assert "image" not in table.column_names
    group = index.row_groups("train")[2]
    assert table.slice(group.start, group.rows).to_pylist() == index.read(group, table.column_names).to_pylist()


def test_the_card_counts_what_is_stored(tmp_path):
    index = build(tmp_path, TABLES)
    au = np.concatenate([write.labels(t) for split, tables in TABLES if split == "train" for t in tables])
    train = index.card.splits["train"]
    assert (train.videos, train.rows) == (3, 712)
    assert train.au_valid == {name: int((au[:, i] >= 0).sum()) for i, name in enumerate(facs.AUS)}
    assert train.au_positives == {name: int((au[:, i] == 1).sum()) for i, name in enumerate(facs.AUS)}
    assert index.card.positive_rates["AU06"] == pytest.approx((au[:, 3] == 1).sum() / (au[:, 3] >= 0).sum())
    expression = np.concatenate([t["expression"] for split, tables in TABLES if split == "train" for t in tables])
    assert train.expressions == tuple(int((expression == c).sum()) for c in range(8))
    assert index.card.dropped == {"au.no_crop": 6}
    assert index.card.annotations == {"au.rows": 15, "au.kept": 9, "au.no_crop": 6}
    assert index.card.mismatches == {"video": {"au.no_crop": 6}}
    assert index.template.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]


def test_a_part_is_the_same_bytes_whenever_it_is_written():
    def one():
        part = write.PartBuilder()
        part.add(track("a", "", 700, 0))
        return part.finish()

    assert one() == one()


def test_what_the_card_does_not_name_is_deleted(tmp_path):
    storage = Storage(tmp_path)
    storage.write("split=train/00009-old.parquet", b"old")
    build(tmp_path, TABLES)
    assert not storage.exists("split=train/00009-old.parquet")


def test_a_folder_without_card_is_no_store(tmp_path):
    with pytest.raises(DatasetError, match="not a face store"):
        read.StoreIndex.open(str(tmp_path))


def test_an_unknown_split_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no split 'test', only train, validation"):
        build(tmp_path, TABLES).row_groups("test")
