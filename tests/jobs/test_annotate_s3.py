"""From and to an S3 server: the same tables as on disk, and one sentence where access is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as pads
import pytest
import s3fs
from clips import scene, write_clip

JOB = Path(__file__).parents[2] / "jobs" / "annotate.py"
WEED = Path(sys.executable).with_name("weed")

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which s3:// leads to a SeaweedFS of our own."""
    identity = {"name": "me", "credentials": [{"accessKey": "key", "secretKey": "secret"}], "actions": ["Admin"]}
    (tmp_path / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (tmp_path / "data").mkdir()
    ports = {}
    for part in ("master", "volume", "filer", "s3"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[part] = free.getsockname()[1] % 20000 + 10000  # `weed` also takes each port + 10000
    options = [f"-{part}.port={port}" for part, port in ports.items()]
    place = [f"-s3.config={tmp_path}/s3.json", f"-dir={tmp_path}/data", "-ip=127.0.0.1"]
    process = subprocess.Popen([str(WEED), "server", "-s3", *place, *options], stderr=subprocess.DEVNULL)
    given = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    yield os.environ | given | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}"}
    process.kill()  # it lingers on SIGTERM
    process.wait()


def _connected(environment: dict[str, str]) -> s3fs.S3FileSystem:
    deadline = time.monotonic() + 60
    while True:
        filesystem = s3fs.S3FileSystem(
            key="key", secret="secret", endpoint_url=environment["AWS_ENDPOINT_URL"], skip_instance_cache=True
        )
        try:
            filesystem.mkdir("archive")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return filesystem


def test_an_archive_on_s3_gives_the_tables_of_one_on_disk(
    server: dict[str, str], checkpoint: str, tmp_path: Path
) -> None:
    s3 = _connected(server)
    for name in ("a", "b"):
        clip = write_clip(tmp_path / "in" / f"{name}.mp4", scene(12, seed=ord(name)))
        s3.put(str(clip), f"archive/in/{name}.mp4")
    s3.put(checkpoint, "archive/model", recursive=True)

    def annotate(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(JOB), *arguments]
        return subprocess.run(command, env=server | changed, timeout=300, check=False, capture_output=True, text=True)

    remote = ("--input", "s3://archive/in", "--checkpoint", "s3://archive/model", "--out", "s3://archive/out")
    assert annotate(*remote).returncode == 0
    assert annotate("--input", f"{tmp_path}/in", "--checkpoint", checkpoint, "--out", f"{tmp_path}/out").returncode == 0
    s3.get("archive/out/frames", str(tmp_path / "fetched"), recursive=True)
    order = [("video_id", "ascending"), ("frame", "ascending")]
    ours, theirs = (pads.dataset(tmp_path / name).to_table().sort_by(order) for name in ("out/frames", "fetched"))
    assert ours.equals(theirs)
    refused = annotate(*remote, AWS_SECRET_ACCESS_KEY="wrong")
    assert refused.returncode == 2
    assert "s3://archive/in cannot be listed" in refused.stderr
    assert "Traceback" not in refused.stderr
