"""Ledger: committed rows stay, replaced and incomplete ones are deleted, and no row exists twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe.annotation import ledger, ledger_entries
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import DatasetError
from aupipe.parquet import read_parquet
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def rows(video_id: str, count: int) -> pa.Table:
    return pa.Table.from_pylist([{"video_id": video_id, "frame": i, "status": "no_face"} for i in range(count)], FRAMES)


def record(video_id: str, key: str = "k") -> VideoRecord:
    return VideoRecord(f"{video_id}.mp4", video_id, decide_key=key, fingerprint=f"f-{video_id}")


def commit(storage: Storage, counts: dict[str, int], generation: int, key: str = "k", rows_per_file: int = 100) -> None:
    frames = pa.concat_tables([rows(video_id, count) for video_id, count in counts.items()])
    records = [record(video_id, key) for video_id in counts]
    ledger_entries.commit(storage, frames, EVENTS.empty_table(), records, generation, rows_per_file)


def content(storage: Storage) -> dict[str, int]:
    table = ledger_entries.read_all(storage, storage.names("frames"))
    counts = table.group_by("video_id").aggregate([("frame", "count")]).to_pylist()
    return {row["video_id"]: row["frame_count"] for row in counts}


def test_a_later_run_replaces_some_videos_of_a_file(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 3, "b": 4}, generation=1)
    commit(storage, {"b": 5}, generation=2, key="other")
    committed = Ledger.read(storage)
    committed.reconcile()
    assert content(storage) == {"a": 3, "b": 5}
    assert len(storage.names("_work/ledger")) == 2  # The entry that held both videos is gone.
    again = Ledger.read(storage)
    again.reconcile()
    assert {key: r.decide_key for key, (r, _) in again.current().items()} == {"a": "k", "b": "other"}
    assert len(storage.names("frames")) == 2


def test_an_added_entry_replaces_records_that_were_read_before(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 3}, generation=1)
    committed = Ledger.read(storage)
    assert [r.decide_key for r, _ in committed.current().values()] == ["k"]
    for video_id in "ab":
        added = [record(video_id, "other")]
        committed.add(ledger_entries.commit(storage, rows(video_id, 1), EVENTS.empty_table(), added, 2, 100), added)
    assert {key: r.decide_key for key, (r, _) in committed.current().items()} == {"a": "other", "b": "other"}


@pytest.mark.parametrize("generation", range(3, 9))
def test_of_an_entry_that_is_packed_twice_the_later_one_counts(tmp_path: Path, generation: int) -> None:
    """A run that is killed leaves former packs, whose names, and so their order, are derived from the generations."""
    storage = Storage(tmp_path)
    for number, key in ((1, "k"), (generation, "k")):
        commit(storage, {"a": 3}, number, key)
        ledger_entries.pack(storage, Ledger.read(storage).table)
    commit(storage, {"a": 3}, 2, "other")
    assert len(storage.names("_work/ledger", ".parquet")) == 2
    committed = Ledger.read(storage)
    assert committed.next_generation == generation + 1
    assert committed.current()["a"][0].decide_key == "k"


def test_rows_of_some_videos_are_grouped_by_their_entry(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for number, videos in enumerate(("ad", "bce")):
        commit(storage, dict.fromkeys(videos, 1), number + 1)
    current = Ledger.read(storage).current()
    for some, expected in ((range(5), {"ad", "bce"}), ([1, 3, 4], {"d", "be"}), ([2], {"c"}), ([], set())):
        chosen = current.subset(np.array(some, int))
        groups = ["".join(video_id for video_id, _ in chosen.pairs(rows)) for rows in chosen.by_entry()]
        assert set(groups) == expected
        assert len(groups) == len(expected)


def test_files_without_an_entry_are_leftovers(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 3}, generation=1)
    storage.write("frames/0123456789abcdef01234567-00000.parquet", b"not even parquet")
    storage.write("frames/interview.mp4", b"somebody's video in a folder that happens to be called frames")
    (tmp_path / "frames" / ".aupipe-tmp-123").write_bytes(b"x")
    Ledger.read(storage).reconcile()
    (kept,) = storage.names("frames", ".parquet")
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == sorted(
        [kept.split("/")[1], "interview.mp4"]
    )


def test_writing_the_same_twice_changes_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 3}, generation=1)
    before = {name: storage.read(name) for name in storage.names()}
    commit(storage, {"a": 3}, generation=1)
    assert {name: storage.read(name) for name in storage.names()} == before


def test_other_bytes_or_another_part_have_another_name(tmp_path: Path) -> None:
    storage, frames, events = Storage(tmp_path), FRAMES.empty_table(), EVENTS.empty_table()
    found = [record("a"), replace(record("a"), fingerprint="g"), replace(record("a"), source_hash="f-a[1 s, )")]
    assert len({ledger_entries.commit(storage, frames, events, [each], 1, 100).name for each in found}) == 3


@pytest.mark.parametrize("gone", range(4))
def test_an_entry_whose_file_is_gone_does_not_count(gone: int, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 25}, generation=1, rows_per_file=10)
    commit(storage, {"b": 3}, generation=1)
    files = [name for entry in Ledger.read(storage).current()["a"][1:] for name in (*entry.frames, *entry.events)]
    assert len(files) == 4
    storage.delete(files[gone])
    committed = Ledger.read(storage)
    assert set(committed.current()) == {"b"}
    committed.reconcile()  # The other files of the entry are leftovers.
    assert content(storage) == {"b": 3}
    assert len(storage.names("events")) == 1


@pytest.mark.parametrize("packed", [(), ("a",), ("a", "b"), ("a", "b", "c")])
def test_moved_files_are_renewed_where_their_entries_are(
    packed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    for first in "abc":
        commit(storage, {f"{first}1": 1, f"{first}2": 2}, generation=1)
        if first in packed:
            with monkeypatch.context() as patch:
                patch.setattr(ledger, "_ENTRIES_PER_PACK", 1 if packed == ("a",) else len(packed))
                Ledger.read(storage).reconcile()
    entries = Ledger.read(storage).entries
    frames = {name: storage.read(name) for name in storage.names("frames")}
    moved = Inputs.of(
        Input(f"/new/{name}", name, signature=sign) for name, sign in (("a2", "5:1"), ("b1", ""), ("x", ""))
    )
    committed = Ledger.read(storage)
    committed.renew(moved)
    for found in (committed, Ledger.read(storage)):
        assert {key: (r.uri, r.stat_signature) for key, (r, _) in found.current().items()} == {
            "a1": ("a1.mp4", ""), "a2": ("/new/a2", "5:1"), "b1": ("/new/b1", ""), "b2": ("b2.mp4", ""),
            "c1": ("c1.mp4", ""), "c2": ("c2.mp4", ""),
        }  # fmt: skip
        assert found.entries == entries
    assert {name: storage.read(name) for name in storage.names("frames")} == frames
    held = [name for table in ledger_entries.read_tables(storage) for name in table["video_id"].to_pylist()]
    assert sorted(held) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    before = {name: storage.read(name) for name in storage.names()}
    Ledger.read(storage).renew(moved)
    Ledger.read(storage).renew(moved[:0])
    assert {name: storage.read(name) for name in storage.names()} == before


def test_files_are_bounded(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 25}, generation=1, rows_per_file=10)
    assert len(storage.names("frames")) == 3
    assert content(storage) == {"a": 25}


def test_videos_that_are_not_to_be_kept_go(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 3, "b": 4}, generation=1)
    commit(storage, {"c": 5}, generation=1)
    Ledger.read(storage).reconcile(keep={"b"})
    assert content(storage) == {"b": 4}
    assert set(Ledger.read(storage).current()) == {"b"}


def test_records_of_an_older_version_are_of_whole_videos(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 3}, generation=1)
    (found, _) = Ledger.read(storage).current()["a"]
    assert found == replace(record("a"), source_hash="f-a")


def test_a_record_survives_a_row() -> None:
    full = VideoRecord(
        "a.mp4", "a", stat_signature="1:2", fingerprint="f", source_hash="f[0, 1]", losses=("truncated: 1 s",),
        status="partial", reason="", frames_expected=0, variable_frame_rate=False, hdr="", work_s=0.0,
    )  # fmt: skip
    for known in (full, replace(full, losses=(), reason=None, frames_expected=None)):
        row = json.loads(json.dumps(known.to_row()))
        assert VideoRecord.from_row(row | {"speaker": "anna"}) == known  # a further column of a manifest
    assert full.to_row()["frames_expected"] == 0  # zero is known
    assert VideoRecord("b.mp4", "b").to_row() == {"uri": "b.mp4", "video_id": "b"}
    one, other = (VideoRecord.from_row(json.loads(json.dumps(full.to_row()))) for _ in range(2))
    assert one.status is other.status  # A million records share the texts that repeat.
    old = {"uri": "a.mp4", "video_id": "a", "fingerprint": "f", "content": "c"}
    assert VideoRecord.from_row(old).source_hash == "c"


def test_many_entries_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ENTRIES_PER_PACK", 3)
    storage = Storage(tmp_path)
    for name in "abcdefg":
        commit(storage, {name: 2}, generation=1)
    before = Ledger.read(storage)
    before.reconcile()
    assert storage.names("_work/ledger", ".json") == []
    assert len(storage.names("_work/ledger", ".parquet")) == 3
    assert Ledger.read(storage).current() == before.current()
    assert content(storage) == dict.fromkeys("abcdefg", 2)


def test_packs_of_a_version_without_a_column_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ENTRIES_PER_PACK", 1)
    storage = Storage(tmp_path)
    commit(storage, {"a": 3}, generation=1)
    Ledger.read(storage).reconcile()
    (name,) = storage.names("_work/ledger", ".parquet")
    older = pq.read_table(tmp_path / name).drop_columns(["loss_if_corrupt", "remark"])
    pq.write_table(older, tmp_path / name)
    commit(storage, {"b": 2}, generation=2)
    read = Ledger.read(storage)
    assert {video_id: found.remark for video_id, (found, _) in read.current().items()} == {"a": None, "b": None}
    read.reconcile()
    assert Ledger.read(storage).current().keys() == {"a", "b"}


def test_a_packed_entry_is_replaced_and_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ENTRIES_PER_PACK", 1)
    storage = Storage(tmp_path)
    for generation, key in enumerate(("k", "other", "k"), start=1):
        commit(storage, {"a": 3}, generation, key)
        Ledger.read(storage).reconcile()
        ((record, entry),) = Ledger.read(storage).current().values()
        assert (record.decide_key, entry.generation) == (key, generation)
        assert content(storage) == {"a": 3}
    Ledger.read(storage).reconcile(keep=())
    assert Ledger.read(storage).current() == {}
    assert storage.names("frames") == []


def packed_ids(storage: Storage) -> list[str]:
    tables = [read_parquet(storage.read(name)) for name in storage.names("_work/ledger", ".parquet")]
    return sorted(video_id for table in tables for video_id in table["video_id"].to_pylist())


def test_packs_hold_no_records_of_removed_or_replaced_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ENTRIES_PER_PACK", 3)
    storage = Storage(tmp_path)
    for pair in ("ab", "cd", "ef", "gh"):
        commit(storage, dict.fromkeys(pair, 2), generation=1)
    Ledger.read(storage).reconcile()
    assert packed_ids(storage) == list("abcdefgh")
    commit(storage, {"a": 5}, generation=2, key="other")
    Ledger.read(storage).reconcile()
    assert packed_ids(storage) == list("cdefgh")  # The entry of b alone has a file of its own.
    Ledger.read(storage).reconcile(keep=["a", "c", "d", "e", "g", "h"])
    assert packed_ids(storage) == list("cdgh")
    texts = b"".join(storage.read(name) for name in storage.names("_work/ledger", ".json"))
    assert (b"b.mp4" in texts, b"f.mp4" in texts) == (False, False)
    assert content(storage) == {"a": 5} | dict.fromkeys("cdegh", 2)
    assert Ledger.read(storage).current().keys() == set("acdegh")
    Ledger.read(storage).reconcile(keep=[])
    assert storage.names("_work/ledger") == storage.names("frames") == []


@pytest.mark.parametrize("seed", range(8))  # The names of entries are hashes, and their order decides.
@pytest.mark.parametrize("keep", [None, "a"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_kill_between_commit_and_deletion_loses_nothing(
    seed: int, keep: str | None, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, a, b = Storage(tmp_path), f"a{seed}", f"b{seed}"
    commit(storage, {a: 3, b: 4}, generation=1)
    if packed:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_ENTRIES_PER_PACK", 1)
            Ledger.read(storage).reconcile()
    if keep is None:
        commit(storage, {b: 5}, generation=2, key="other")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    kept = None if keep is None else [a]
    with monkeypatch.context() as patch:
        patch.setattr(ledger_entries, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            Ledger.read(storage).reconcile(kept)
    expected = {a: 3} if keep else {a: 3, b: 5}
    for _ in range(2):
        Ledger.read(storage).reconcile(kept)
        assert content(storage) == expected
        assert Ledger.read(storage).current().keys() == expected.keys()


def test_a_killed_removal_from_packs_is_done_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ENTRIES_PER_PACK", 3)
    storage = Storage(tmp_path)
    for name in "abc":
        commit(storage, {name: 2}, generation=1)
    Ledger.read(storage).reconcile()

    def killed(self: Storage, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            Ledger.read(storage).reconcile(keep=["a", "b"])
    assert Ledger.read(storage).current().keys() == set("abc")
    Ledger.read(storage).reconcile(keep=["a", "b"])
    assert packed_ids(storage) == ["a", "b"]
    assert content(storage) == {"a": 2, "b": 2}


def test_a_killed_packing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ENTRIES_PER_PACK", 2)
    storage = Storage(tmp_path)
    for name in "abcd":
        commit(storage, {name: 2}, generation=1)
    expected = Ledger.read(storage).current()

    def killed(self: Storage, names: list[str]) -> None:
        if names:
            raise KeyboardInterrupt

    committed = Ledger.read(storage)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete_many", killed)
        with pytest.raises(KeyboardInterrupt):
            committed.reconcile()
    assert Ledger.read(storage).current() == expected
    Ledger.read(storage).reconcile()
    assert len(storage.names("_work/ledger")) == 2
    assert Ledger.read(storage).current() == expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "a"}', b"\xff\xfe"])
def test_a_damaged_entry_is_named(content: bytes, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 2}, 1)
    commit(storage, {"b": 2}, 2)
    damaged = storage.names("_work/ledger")[0]
    storage.write(damaged, content)
    with pytest.raises(DatasetError, match=f"{damaged} is damaged .*; fix: restore"):
        Ledger.read(storage)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    commit(storage, {"a": 2}, 1)
    (name,) = storage.names("frames")
    storage.write(name, storage.read(name)[:-20])
    with pytest.raises(DatasetError, match=f"{name} is damaged"):
        ledger_entries.read_all(storage, [name])
