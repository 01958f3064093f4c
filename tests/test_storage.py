"""Storage: a file is there whole or not at all, and no name leaves the root."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from aupipe.errors import ConfigError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("root", ["local", "memory://bucket"])
def test_write_read_list_delete(root: str, tmp_path: Path) -> None:
    storage = pickle.loads(pickle.dumps(Storage(tmp_path / root if root == "local" else root)))
    assert storage.names("a") == []
    storage.write("a/b/one.bin", b"1")
    storage.write("a/two.txt", b"22")
    storage.write("a/two.txt", b"333")
    assert storage.names("a") == ["a/b/one.bin", "a/two.txt"]
    assert storage.names("a", ".txt") == ["a/two.txt"]
    assert (storage.read("a/two.txt"), storage.size("a/two.txt")) == (b"333", 3)
    with storage.open("a/two.txt") as file:
        file.seek(1)
        assert file.read() == b"33"
    storage.delete("a/two.txt")
    storage.delete("a/two.txt")
    assert not storage.exists("a/two.txt")


def test_a_half_written_file_is_not_listed_and_is_cleaned_up(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("a/x", b"1")
    (tmp_path / "a" / ".aupipe-tmp-dead").write_bytes(b"half")
    assert storage.names() == ["a/x"]
    assert storage.delete_leftovers() == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["x"]


def test_no_name_leaves_the_root(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would leave"):
        Storage(tmp_path / "root").write("../outside", b"x")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ConfigError, match="nosuch://"):
        Storage("nosuch://bucket")
