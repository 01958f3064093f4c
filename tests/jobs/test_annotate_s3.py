"""Input and output on an S3 server: the same tables as on disk, also after an outage; refused access is an error."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
import s3fs

from aupipe import storage
from aupipe.annotation.input_search import find_inputs
from aupipe.annotation.stat_signatures import with_signatures
from aupipe.storage import Storage
from harness.clips import scene, write_clip
from harness.proxy import proxying
from harness.s3_server import S3Server
from harness.sizes import sizes

pytestmark = pytest.mark.cluster

JOB = Path(__file__).parents[2] / "jobs" / "annotate.py"


class Server(S3Server):
    """A server, and jobs that use it."""

    def annotate(self, *arguments: str, **changed: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(JOB), *arguments]
        environment = self.environment | changed
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def rows(self, name: str, folder: Path) -> pa.Table:
        """Return the frames table below `name` in the bucket, in a fixed order."""
        self.files.get(f"archive/{name}/frames", str(folder / name), recursive=True)
        return rows(folder / name)


def rows(folder: Path) -> pa.Table:
    return pads.dataset(folder).to_table().sort_by([("video_id", "ascending"), ("frame", "ascending")])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.kill()


REMOTE = (
    "--input", "s3://archive/in", "--checkpoint", "s3://archive/model", "--out", "s3://archive/out",
    "--set", "engine=ray",
)  # fmt: skip


def test_from_and_to_s3_and_access_refused(server: Server, exported_checkpoint: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", scene(40), options={"g": "10"})
    server.files.put(str(clip), "archive/in/a.mp4")
    server.files.put(exported_checkpoint, "archive/model", recursive=True)
    with proxying({}) as proxy:
        job = server.annotate(*REMOTE, "--set", "segment_s=0.4", http_proxy=proxy.url)
        refused = server.annotate(*REMOTE, AWS_SECRET_ACCESS_KEY="wrong")
        _, message = refused.communicate(timeout=300)
        assert refused.returncode == 2
        assert "s3://archive/in cannot be listed" in message
        assert message.count("\n") == 1
        _, message = job.communicate(timeout=300)
        assert job.returncode == 0, message
    table = server.rows("out", tmp_path / "fetched")
    assert table["frame"].to_pylist() == list(range(40))
    assert set(table["status"].to_pylist()) == {"ok"}
    host = server.environment["AWS_ENDPOINT_URL"]
    assert "CONNECT" not in {method for method, _ in proxy.requests}  # Ray's nodes do not use the proxy for each other.
    requested = {(method, target.partition("?")[0]) for method, target in proxy.requests}
    reads = [method for method, target in proxy.requests if target.partition("?")[0] == f"{host}/archive/in/a.mp4"]
    assert sorted(reads) == ["GET", "HEAD"]  # One worker probes the clip and annotates its segments.
    assert any(method == "PUT" and target.startswith(f"{host}/archive/out/frames/") for method, target in requested)


AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")


def signatures(named: list[str]) -> dict[str, str | None]:
    """Return the signature of each input, by video_id."""
    return {video.video_id: video.signature for video in with_signatures(find_inputs(named)[0])}


def test_signatures_of_a_folder_cost_no_request_each(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in AWS:
        monkeypatch.setenv(name, server.environment[name])
    server.files.pipe({f"archive/in/{number}.mp4": b"1" * number for number in range(1, 10)})
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri\n" + "".join(f"s3://archive/in/{number}.mp4\n" for number in range(1, 10)))
    with proxying({}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        listed = signatures(["s3://archive/in"])
        assert [method for method, _ in proxy.requests].count("HEAD") <= 1  # of the folder
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.requests.clear()
        assert signatures([str(manifest)]) == listed
        assert [method for method, _ in proxy.requests].count("HEAD") == 9
    assert len(set(listed.values())) == 9
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_folder_is_listed_in_pages(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AWS:
        monkeypatch.setenv(name, server.environment[name])
    monkeypatch.setattr(storage, "_OBJECTS_PER_REQUEST", 3)
    s3fs.S3FileSystem.clear_instance_cache()
    for count in sizes(3):
        names = [f"{number}/é {number}.mp4" for number in range(count)]
        server.files.pipe({f"archive/{count}/{name}": b"1" for name in names})
        found = find_inputs([f"s3://archive/{count}"])[0]
        assert [video.video_id for video in found] == (names or ["0"])  # without a folder, it is the name of a file
        assert all(video.uri == f"s3://archive/{count}/{video.video_id}" for video in found if count)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_request_deletes_many_objects(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AWS:
        monkeypatch.setenv(name, server.environment[name])
    monkeypatch.setattr("aupipe.storage._OBJECTS_PER_REQUEST", 20)
    names = [f"parts/{number}" for number in range(23)]
    server.files.pipe({f"archive/out/{name}": b"1" for name in [*names, "kept"]})
    with proxying({}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        storage = Storage("s3://archive/out")
        storage.delete_many([*names, "parts/missing"])
        storage.delete("parts/missing")
        methods = [method for method, _ in proxy.requests]
        assert storage.names() == ["kept"]
    assert (methods.count("POST"), methods.count("DELETE"), len(methods)) == (2, 1, 3)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_the_same_tables_as_on_disk_after_an_outage_of_the_server(
    server: Server, exported_checkpoint: str, tmp_path: Path
) -> None:
    for number in range(4):
        clip = write_clip(tmp_path / "in" / f"{number}.mp4", scene(75, seed=number), options={"preset": "ultrafast"})
        server.files.put(str(clip), f"archive/in/{number}.mp4")
    server.files.put(exported_checkpoint, "archive/model", recursive=True)
    job = server.annotate(*REMOTE, "--workers", "1", "--set", "packet_frames=0")  # with features in the store
    deadline = time.monotonic() + 300
    while not server.files.glob("archive/out/_work/observed/*.parquet"):
        assert job.poll() is None, "the job ended before the test could stop the server"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.kill()
    time.sleep(5)  # Length of the outage.
    server.start()
    _, message = job.communicate(timeout=500)
    assert job.returncode == 0, message
    local = server.annotate(
        "--input", f"{tmp_path}/in", "--checkpoint", exported_checkpoint, "--out", f"{tmp_path}/out"
    )
    local.communicate(timeout=300)
    assert server.rows("out", tmp_path / "fetched").equals(rows(tmp_path / "out" / "frames"))
