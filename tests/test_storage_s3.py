"""Storage on an S3 server: listings are those of now, and names may have any characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from aupipe.storage import Storage, file_signature
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
