"""Storage: writes are atomic, and names outside the root are errors."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from pathlib import Path

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from pyarrow.fs import FileSystem
from s3fs.errors import translate_boto_error

from aupipe.commands.job import location
from aupipe.errors import ConfigError
from aupipe.storage import (
    TRANSIENT,
    Storage,
    absolute_path,
    file_signature,
    filesystem_of,
    is_transient,
    local_path,
    open_input,
)

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


@pytest.mark.parametrize("root", ["local", "memory://many"])
def test_many_files_are_deleted_and_no_other(root: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path / root if root == "local" else root)
    names = [f"a/{number}" for number in range(100)]
    for name in (*names, "a/kept"):
        storage.write(name, b"1")
    storage.delete_many([])
    storage.delete_many([*names, "a/missing"])
    assert storage.names() == ["a/kept"]
    with pytest.raises(ConfigError, match="is outside"):
        storage.delete_many(["../outside"])


def test_a_partly_written_file_is_not_listed_and_is_deleted(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("a/x", b"1")
    (tmp_path / "a" / ".aupipe-tmp-dead").write_bytes(b"half")
    assert storage.names() == ["a/x"]
    assert storage.delete_leftovers() == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["x"]


def test_folders_need_no_sync_where_the_disk_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def without_folders(file: int) -> None:  # as shared folders of VirtualBox and older SMB clients answer
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))
        sync(file)

    monkeypatch.setattr(os, "fsync", without_folders)
    storage, number = Storage(tmp_path), errno.EINVAL
    storage.write("a/x", b"1")
    assert storage.read("a/x") == b"1"
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        storage.write("a/y", b"1")


def test_colons_in_a_path_are_no_chain_of_filesystems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root in ("o::x", str(tmp_path / "zip::y"), "~::z"):
        storage = Storage(root)
        storage.write("a::b/one.bin", b"1")
        assert (storage.names(), storage.read("a::b/one.bin")) == (["a::b/one.bin"], b"1")
        assert storage.children() == (["a::b"], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o::x", "zip::y", "~::z"]
    assert filesystem_of("s3://bucket/a/::x/b::c.mp4")[1] == "bucket/a/::x/b::c.mp4"
    assert filesystem_of("http://[::1]:80/x.mp4")[1] == "http://[::1]:80/x.mp4"
    assert filesystem_of(str(tmp_path / "a::b"))[1] == str(tmp_path / "a::b")


def test_pyarrow_reads_the_same_names(tmp_path: Path) -> None:
    for name in ("my runs", "a%20b", "a+b", "ü#1?x&y", "a:b@c", "100%"):
        uri, path = (Storage(root).arrow_path("stages") for root in (f"s3://bucket/{name}", tmp_path / name))
        assert FileSystem.from_uri(f"{uri}?region=us-east-1")[1] == f"bucket/{name}/stages"  # else pyarrow asks AWS
        assert FileSystem.from_uri(path)[1] == f"{tmp_path}/{name}/stages"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("link/../a", "far/a"), ("link/../../near/link", "near/link"), ("link/b/../../c", "far/c"), ("link/..", "far"),
        ("./b/../a", "near/a"), ("../far", "far"), ("link/a", "near/link/a"), ("gone/../a", "near/a"),
        ("...", "near/..."),
    ],
)  # fmt: skip
def test_two_dots_after_a_link_lead_to_the_parent_of_its_target(
    path: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far/to/b").mkdir(parents=True)
    (tmp_path / "near/b").mkdir(parents=True)
    (tmp_path / "near/link").symlink_to(tmp_path / "far/to")
    monkeypatch.chdir(tmp_path / "near")
    assert absolute_path(path) == location(path) == Storage(path).root == str(tmp_path / expected)
    assert absolute_path(str(tmp_path / "near" / path)) == str(tmp_path / expected)


@pytest.mark.parametrize("path", ["/tmp/../etc/a", "/../etc/a"])
def test_two_dots_that_lead_to_the_root_leave_one_slash(path: str) -> None:
    assert absolute_path(path) == Storage(path).root == "/etc/a"


def test_a_name_outside_the_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is outside"):
        Storage(tmp_path / "root").write("../outside", b"x")


def test_an_unknown_protocol_is_reported() -> None:
    with pytest.raises(ConfigError, match="nosuch://"):
        Storage("nosuch://bucket")


def test_requests_to_unreachable_storage_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, waited, requested = Storage("memory://away"), list[float](), list[str]()
    monkeypatch.setattr("aupipe.storage.time.sleep", waited.append)
    read = storage._filesystem.cat_file
    busy: list[OSError] = []

    def cat_file(path: str) -> bytes:
        requested.append(path)
        if busy:
            raise busy.pop()
        return bytes(read(path))

    monkeypatch.setattr(storage._filesystem, "cat_file", cat_file)
    busy[:] = [ConnectionResetError("away")]
    with pytest.raises(ConnectionResetError):  # not retried, because the storage has never answered
        storage.read("a")
    storage.write("a", b"1")
    storage.write("deep/a", b"2")
    waited.clear()
    busy[:] = [OSError("SlowDown: reduce your request rate"), ConnectionResetError("away")]
    assert storage.read("a") == b"1"
    assert waited == [1, 2]
    busy[:] = [ConnectionResetError("away")]
    assert Storage("memory://away/deep").read("a") == b"2"  # another folder of what has answered
    busy[:] = [PermissionError("AccessDenied")]
    with pytest.raises(PermissionError):
        storage.read("a")
    busy[:] = [ConnectionResetError("away") for _ in range(20)]
    with pytest.raises(ConnectionResetError):
        storage.read("a")
    assert waited == [1, 2, 1, 1, 2, 4, 8, 16, 32]


def test_a_file_uri_is_a_plain_path(tmp_path: Path) -> None:
    for uri, path in {
        "file:///a%20b/c%25.mp4": "/a b/c%.mp4", "file://localhost/a": "/a", "file://localhosts/a": "localhosts/a",
        "FILE:/a": "/a", "file://a/b": "a/b",
        "/a%20b": "/a%20b", "s3://b/a%20b": "s3://b/a%20b", "file:a": "file:a", "file:///100%": "/100%",
    }.items():  # fmt: skip
        assert local_path(uri) == path
    (tmp_path / "my films").mkdir()
    storage = Storage(f"file://{tmp_path}/my%20films")
    storage.write("a.txt", b"1")
    assert (storage.root, (tmp_path / "my films/a.txt").read_bytes()) == (f"{tmp_path}/my films", b"1")
    with open_input(f"file://{tmp_path}/my%20films/a.txt") as file:
        assert file.read() == b"1"
    assert location(f"file://{tmp_path}/my%20films") == f"{tmp_path}/my films"
    assert location("file://my%20films") == str(Path.cwd() / "my films")


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("503", "Service Unavailable", True),  # of HEAD, whose answer has no body
        ("SlowDown", "Please reduce your request rate.", True),
        ("InternalError", "We encountered an internal error. Please try again.", True),
        ("500", "Internal Server Error", True),  # of HEAD too
        ("502", "Bad Gateway", True),
        ("504", "Gateway Timeout", True),
        ("504", "Gateway Time-out", True),  # of nginx
        ("429", "Too Many Requests", True),
        ("RequestTimeout", "Your socket connection was not read from or written to within the timeout period.", True),
        ("XMinioServerNotInitialized", "Server not initialized yet, please try again.", True),
        ("403", "Forbidden", False),
        ("404", "Not Found", False),
    ],
)
def test_a_busy_server_is_no_permanent_error(code: str, message: str, expected: bool) -> None:
    error = translate_boto_error(ClientError({"Error": {"Code": code, "Message": message}}, "GetObject"))
    assert is_transient(error) is expected
    assert any(name in str(error) for name in TRANSIENT) is expected  # as Ray Data searches it


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which none can be created")
def test_a_folder_that_cannot_be_created_is_a_failure_of_the_disk_with_one_sentence() -> None:
    with pytest.raises(OSError, match=r"^/proc/aupipe/a cannot be created: No such file .*; fix: name") as error:
        Storage("/proc/aupipe/a").write("b", b"")
    assert isinstance(error.value, ConfigError)
    assert isinstance(pickle.loads(pickle.dumps(error.value)), OSError)  # as Ray sends it


def test_signatures_are_those_of_the_files_of_a_folder(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("folder/b", b"1")
    storage.write("folder/a", b"22")
    storage.write("folder/below/c", b"3")
    os.utime(tmp_path / "folder/b", ns=(5, 5))
    (tmp_path / "folder/d").symlink_to("missing")
    found = storage.signatures("folder")
    assert list(found) == ["a", "b", "d"]
    assert (found["b"], found["d"]) == ("1:5", "")
    assert found == {name: file_signature(storage.path(f"folder/{name}")) for name in found}


def test_folders_and_files_are_listed_in_order_whatever_that_of_the_disk(tmp_path: Path) -> None:
    for name in "hbfdagce":
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.txt").touch()
    assert Storage(tmp_path).children() == (list("abcdefgh"), [f"{name}.txt" for name in "abcdefgh"])
