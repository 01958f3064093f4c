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


def test_storage_that_is_away_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, waited, asked = Storage("memory://away"), list[float](), list[str]()
    monkeypatch.setattr("aupipe.storage.time.sleep", waited.append)
    read = storage._filesystem.cat_file
    busy: list[OSError] = []

    def cat_file(path: str) -> bytes:
        asked.append(path)
        if busy:
            raise busy.pop()
        return bytes(read(path))

    monkeypatch.setattr(storage._filesystem, "cat_file", cat_file)
    busy[:] = [ConnectionResetError("away")]
    with pytest.raises(ConnectionResetError):  # it never answered: a wrong address is said at once
        storage.read("a")
    storage.write("a", b"1")
    busy[:] = [OSError("SlowDown: reduce your request rate"), ConnectionResetError("away")]
    assert storage.read("a") == b"1"
    assert waited == [1, 2]
    busy[:] = [PermissionError("AccessDenied")]
    with pytest.raises(PermissionError):
        storage.read("a")
    busy[:] = [ConnectionResetError("away") for _ in range(20)]
    with pytest.raises(ConnectionResetError):
        storage.read("a")
    assert waited == [1, 2, 1, 2, 4, 8, 16, 32]
