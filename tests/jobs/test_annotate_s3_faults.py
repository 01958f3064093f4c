"""S3 while a job reads it: an object that is overwritten or deleted costs only itself; a busy server costs time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs

from aupipe.annotation.packets import Packet
from aupipe.annotation.runner import LocalRunner
from aupipe.annotation.stages import Row
from aupipe.commands.annotate import main
from harness import processes
from harness.clips import scene, write_clip
from harness.proxy import proxying
from harness.s3_server import S3Server

pytestmark = pytest.mark.cluster

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")
OUT = "s3://archive/out"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Return a server with three clips, which this process uses too."""
    running = S3Server(tmp_path)
    for name in AWS:
        monkeypatch.setenv(name, running.environment[name])
    s3fs.S3FileSystem.clear_instance_cache()
    for name in "abc":
        clip = write_clip(tmp_path / f"{name}.mp4", scene(12, size=(96, 72), face=64, seed=ord(name)))
        running.files.put(str(clip), f"archive/in/{name}.mp4")
    yield running
    running.kill()
    s3fs.S3FileSystem.clear_instance_cache()


def command(checkpoint: str) -> list[str]:
    return ["--input", "s3://archive/in", "--checkpoint", checkpoint, "--out", OUT, "--set", "engine=local"]


def reasons(folder: Path, server: S3Server) -> dict[str, str]:
    server.files.get("archive/out/videos.parquet", str(folder / "videos.parquet"))
    return {row["video_id"]: row["reason"] for row in pq.read_table(folder / "videos.parquet").to_pylist()}


def test_an_object_that_changes_after_its_probe_costs_only_itself(
    server: S3Server, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LocalRunner.annotate_packets

    def after_changes(self: LocalRunner, packets: Sequence[Packet]) -> Iterator[Row]:
        other = write_clip(tmp_path / "other.mp4", scene(40, size=(128, 96), face=80, seed=9))
        server.files.put(str(other), "archive/in/b.mp4")
        server.files.rm("archive/in/c.mp4")
        s3fs.S3FileSystem.clear_instance_cache()  # A worker on another node has no listing.
        return whole(self, packets)

    with monkeypatch.context() as patch:
        patch.setattr(LocalRunner, "annotate_packets", after_changes)
        assert main(command(checkpoint)) == 3
    found = reasons(tmp_path, server)
    assert found["a.mp4"] == ""
    assert found["b.mp4"].startswith("changed: ")
    assert found["c.mp4"].startswith("not_found: ")
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(command(checkpoint)) == 0
    assert reasons(tmp_path, server)["b.mp4"] == ""


def test_a_busy_server_costs_time(server: S3Server, checkpoint: str, tmp_path: Path) -> None:
    busy_for(10.0, server, checkpoint, tmp_path, "engine=local")


@pytest.mark.slow
def test_a_server_that_is_busy_for_a_minute_costs_time(server: S3Server, checkpoint: str, tmp_path: Path) -> None:
    busy_for(60.0, server, checkpoint, tmp_path, "engine=ray")


def busy_for(seconds: float, server: S3Server, checkpoint: str, folder: Path, engine: str) -> None:
    """Annotate while the server answers 503 for this time, from the first probe on."""
    with proxying({}) as proxy:
        job = subprocess.Popen(
            processes.command("annotate", *command(checkpoint), "--set", engine),
            env=server.environment | {"http_proxy": proxy.url}, stdout=sys.stderr,
        )  # fmt: skip
        while not any("/archive/in/a.mp4" in target for _, target in proxy.requests):
            assert job.poll() is None
            time.sleep(0.02)
        proxy.busy = True
        time.sleep(seconds)
        proxy.busy = False
        assert job.wait(300) == 0
    assert reasons(folder, server) == dict.fromkeys(("a.mp4", "b.mp4", "c.mp4"), "")
