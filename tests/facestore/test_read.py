import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.facestore import job, read, shard_reader, write
from aupipe.media.audio import AudioBlock

from .conftest import HEADER, build, track

pytestmark = pytest.mark.unit


def test_rows_are_read_in_order(tmp_path, build_store, tables):
    index = build_store(tmp_path)
    groups = index.row_groups("train")
    assert [(g.group, g.start, g.rows) for g in groups] == [(0, 0, 256), (1, 256, 256), (2, 512, 193), (0, 705, 7)]
    assert groups[0].tracks == (("a", ""),)
    assert groups[1].tracks == (("a", ""), ("b", "left"), ("b", "right"))
    assert groups[1].video_ids == ("a", "b")
    together = [row for g in groups for row in index.read(g).to_pylist()]
    assert together == [row for split, tables in tables if split == "train" for t in tables for row in t.to_pylist()]
    assert index.read(groups[2], ["frame"]).column_names == ["frame"]


def test_labels_exclude_images_and_have_the_row_numbers_of_the_split(tmp_path, build_store):
    index = build_store(tmp_path)
    table = index.labels("train")
    assert table.num_rows == index.rows("train") == 712
    assert "image" not in table.column_names
    group = index.row_groups("train")[2]
    assert table.slice(group.start, group.rows).to_pylist() == index.read(group, table.column_names).to_pylist()


def test_a_video_without_sound_has_no_audio(tmp_path, build_store):
    index = build_store(tmp_path)
    assert index.audio("a") is None
    index.storage.write(write.audio_name("a"), write.audio_file("a", []))  # it was looked for, and there is none
    assert index.audio("a") is None
    blocks = [AudioBlock(start, 8000, np.full((1, 4), level, np.int16)) for start, level in ((0.5, 2**14), (1.0, -1))]
    index.storage.write(write.audio_name("a"), write.audio_file("a", blocks))
    audio = index.audio("a")
    assert (audio.rate_hz, audio.start_s, audio.waveform.tolist()) == (8000, 0.5, [[0.5] * 4 + [-1 / 2**15] * 4])


def test_a_folder_without_a_card_is_not_a_store(tmp_path):
    with pytest.raises(DatasetError, match="not a face store"):
        read.FaceStore.open(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"schema_version": "0"}, "has schema 0 and AUs AU01"), ({"au_order": facs.AUS[::-1]}, "and AUs AU26,AU25")],
)
def test_a_store_of_another_schema_is_refused(tmp_path, build_store, change, message):
    card = build_store(tmp_path).storage
    card.write(read.CARD, json.dumps(json.loads(card.read(read.CARD)) | change).encode())
    with pytest.raises(
        DatasetError, match=rf"{message}.* this aupipe reads .*; fix: delete the folder, and run preprocess.py"
    ):
        read.FaceStore.open(str(tmp_path))


def test_a_track_may_continue_in_the_next_file(tmp_path):
    index = build(
        tmp_path, [("train", [track("a", "", 5, 0)]), ("train", [track("a", "", 3, 1), track("b", "", 2, 2)])]
    )
    assert index.labels("train")["video_id"].to_pylist() == ["a"] * 8 + ["b"] * 2


def test_an_unknown_split_is_reported(tmp_path, build_store):
    with pytest.raises(DatasetError, match="no split 'test', only train, validation, all"):
        build_store(tmp_path).row_groups("test")


def test_the_split_all_has_consecutive_row_numbers(tmp_path, build_store):
    index = build_store(tmp_path)
    table, groups = index.labels(read.ALL), index.row_groups(read.ALL)
    assert table.num_rows == index.rows(read.ALL) == index.rows("train") + index.rows("validation")
    assert table.slice(index.rows("train")).to_pylist() == index.labels("validation").to_pylist()
    assert table.slice(groups[-1].start).to_pylist() == index.read(groups[-1], table.column_names).to_pylist()


def test_a_store_with_interrupted_tracks_is_refused_until_it_is_rebuilt(tmp_path):
    pair = [track("b", person, 5, 0) for person in ("left", "right")]
    with pytest.raises(DatasetError, match=r"the train rows of b left are not consecutive; fix: run preprocess\.py"):
        build(tmp_path / "store", [("train", pair), ("train", pair)])
    rebuilt = SimpleNamespace(out=str(tmp_path / "store"), origin=HEADER.source)
    job.check(rebuilt)  # the fix in the message is not refused
    in_order = [("train", [left, left]) for left in pair]
    assert build(tmp_path / "store", in_order).rows("train") == 20
    build(tmp_path / "other", [("train", pair), ("validation", pair)])


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "is missing"), (b"", "is damaged"), (b"PAR1 cut", "is damaged")]
)
def test_a_shard_that_is_missing_or_damaged_is_named(tmp_path, build_store, content, problem):
    index = build_store(tmp_path)
    name = index.card.shards[0].name
    group = index.row_groups("train")[0]
    Path(tmp_path, name).unlink()
    if content is not None:
        Path(tmp_path, name).write_bytes(content)
    shard_reader._metadata.cache_clear()
    for use in (
        lambda: index.labels("train"),
        lambda: index.read(group, ["image"]),
        lambda: index.has("train", "intensity"),
        lambda: next(read.sample_images(index.storage, [name], 1)),
    ):
        with pytest.raises(DatasetError, match=f"{name} {problem}.*fix: "):
            use()
    if content is not None:
        with pytest.raises(DatasetError, match=f"{name} {problem}.*fix: "):
            write.finish(index.storage, HEADER, [shard.name for shard in index.card.shards])


@pytest.mark.parametrize("change", [("schema_version", "1"), ("shards", 3)])
def test_a_store_that_cannot_be_read_is_made_again_in_a_new_folder(tmp_path, build_store, change):
    storage = build_store(tmp_path).storage
    storage.write(read.CARD, json.dumps(json.loads(storage.read(read.CARD)) | dict([change])).encode())
    with pytest.raises(DatasetError, match=r"fix: delete the folder, and run preprocess\.py again"):
        job.check(SimpleNamespace(out=str(tmp_path), origin=HEADER.source))


def test_a_damaged_audio_file_is_named(tmp_path, build_store):
    index = build_store(tmp_path)
    assert index.without_audio(["a", "b"]) == {"a", "b"}
    index.storage.write("audio/a.parquet", b"cut")
    assert index.without_audio(["a", "b"]) == {"b"}
    with pytest.raises(DatasetError, match=r"audio/a\.parquet is damaged.*fix: "):
        index.audio("a")
