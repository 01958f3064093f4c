"""Storage on an S3 server: listings are those of now, and names may have any characters."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pyarrow.fs import FileType
from s3fs import S3FileSystem

from aupipe.storage import Storage, file_signature
from harness.proxy import proxying
from harness.s3_server import S3Server

pytestmark = pytest.mark.cluster


def test_a_folder_lists_what_others_have_written_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = S3Server(tmp_path)
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage = Storage("s3://archive/a b%20c+d")
        storage.write("trials/one/trial.json", b"1")
        assert storage.children("trials") == (["one"], [])
        server.files.pipe_file("archive/a b%20c+d/trials/two/trial.json", b"2")
        server.files.pipe_file("archive/a b%20c+d/trials/note", b"3")
        assert storage.children("trials") == (["one", "two"], ["note"])
        server.files.pipe_file("archive/a b%20c+d/trials/late", b"4")
        assert storage.exists("trials/late")
        server.files.call_s3("put_object", Bucket="archive", Key="a b%20c+d/trials/", Body=b"")  # as the AWS console
        assert storage.children("trials") == (["one", "two"], ["late", "note"])
        signatures = storage.signatures("trials")
        assert signatures == {name: file_signature(storage.path(f"trials/{name}")) for name in ("late", "note")}
        storage.write("trials/late", b"5")
        assert {name for name, each in storage.signatures("trials").items() if each == signatures[name]} == {"note"}
    finally:
        server.kill()


def test_runs_write_where_this_storage_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = S3Server(tmp_path)
    try:
        port = urlsplit(server.environment["AWS_ENDPOINT_URL"]).port
        assert port is not None
        with proxying({"s3.lab.test": port}) as proxy:  # the only way to the server
            network = {"AWS_ENDPOINT_URL": f"http://s3.lab.test:{port}", "http_proxy": proxy.url}
            for name, value in (server.environment | network).items():
                monkeypatch.setenv(name, value)
            S3FileSystem.clear_instance_cache()  # that of the test above has another server
            storage = Storage("s3a://archive/a b%20c")
            path, files = storage.arrow_place("stages")
            assert files is not None
            files = pickle.loads(pickle.dumps(files))  # as it reaches the workers
            assert files.get_file_info(f"{path}/state").type == FileType.NotFound
            storage.write("stages/state", b"1")
            assert files.get_file_info(f"{path}/state").size == 1
            with files.open_output_stream(f"{path}/newer") as file:
                file.write(b"22")
            assert storage.read("stages/newer") == b"22"
            files.delete_dir(path)
            assert storage.names() == []
    finally:
        server.kill()
