"""Copies of remote tables: fetched once by all processes, never above the limit, and mended after a crash."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from aupipe.errors import ConfigError
from aupipe.facestore.node_copies import NodeCopies

pytestmark = pytest.mark.unit


def table(size: int = 1000, value: int = 0) -> pa.Table:
    return pa.table({"image": [bytes([value]) * size, b""]})


def fetch_slowly(folder: Path, log: Path) -> None:
    def fetch() -> pa.Table:
        with log.open("a") as file:
            file.write("fetched\n")
        time.sleep(0.2)
        return table()

    assert NodeCopies(folder).table("key", fetch).equals(table())


def test_processes_fetch_a_table_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=fetch_slowly, args=(tmp_path / "copies", tmp_path / "log")) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * 4
    assert (tmp_path / "log").read_text() == "fetched\n"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_the_copies_used_longest_ago_make_room(tmp_path: Path) -> None:
    limit = 5 * 11_000
    copies = NodeCopies(tmp_path, limit)
    fetched: list[int] = []

    def get(number: int) -> None:
        def fetch() -> pa.Table:
            fetched.append(number)
            return table(10_000, number)

        assert copies.table(str(number), fetch).equals(table(10_000, number))
        time.sleep(0.01)  # longer than the resolution of the file system's clock
        assert size_of(tmp_path) <= limit

    for number in (0, 1, 2, 3, 0, 4, 5, 0, 1):
        get(number)
    assert fetched == [0, 1, 2, 3, 4, 5, 1]  # 0 was used again in between, 1 was not


def test_a_table_above_the_limit_is_returned_but_not_kept(tmp_path: Path) -> None:
    copies = NodeCopies(tmp_path, 5000)
    assert copies.table("big", lambda: table(10_000)).equals(table(10_000))
    assert size_of(tmp_path) == 0


def test_an_incomplete_copy_is_fetched_again_and_leftovers_count(tmp_path: Path) -> None:
    copies = NodeCopies(tmp_path, 20_000)
    copies.table("key", lambda: table(10_000))
    (copy,) = tmp_path.glob("*.arrow")
    os.truncate(copy, 5000)
    (tmp_path / "killed.tmp").write_bytes(bytes(15_000))
    os.utime(tmp_path / "killed.tmp", (1, 1))
    assert copies.table("key", lambda: table(10_000, 1)).equals(table(10_000, 1))
    assert size_of(tmp_path) <= 20_000
    assert copies.table("key", lambda: table(1)).equals(table(10_000, 1))


def test_the_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match=r"belongs to another user; fix: set TMPDIR"):
        NodeCopies(tmp_path)
