"""Training while nodes come and go: a notice, a node back, a node lost. Real raylets, the settings that ship."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "model.width=16", "model.heads=2", "model.mlp_width=16", "input.size_px=32", "stages.train.batch=8",
    "stages.train.epochs=5000", "stages.train.tasks.au.data.every_n=1", "save_every_s=1000",
]  # fmt: skip
ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled"}


def shipped_settings() -> dict[str, int]:
    """Return the system settings with which cluster.yaml starts its head."""
    commands = yaml.safe_load((ROOT / "cluster.yaml").read_text())["head_start_ray_commands"]
    options = [part for command in commands for part in shlex.split(command)]
    return json.loads(next(o for o in options if o.startswith("--system-config=")).partition("=")[2])


@pytest.fixture
def cluster() -> Iterator[object]:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "180"}  # before Ray is imported
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 150 * 2**20}
    found = Cluster(initialize_head=True, head_node_args=head | {"_system_config": shipped_settings()})
    yield found
    found.shutdown()


@pytest.fixture
def metadata() -> Iterator[str]:
    """AWS's metadata service on a spot node that is about to go."""

    class Service(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            assert self.headers["X-aws-ec2-metadata-token"] == "token"
            self.answer(b'{"action": "terminate", "time": "2026-11-28T08:22:00Z"}')

        def answer(self, body: bytes = b"token") -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Run:
    """A training job, seen by what it leaves behind."""

    def __init__(self, store: str, out: Path, address: str) -> None:
        self.out = out
        chosen = ["--recipe", "multilabel_transformer", "--quick", "--data", store, "--out", str(out)]
        chosen += ["--workers", "1-2", *(part for setting in SETTINGS for part in ("--set", setting))]
        self.driver = subprocess.Popen(
            [sys.executable, "jobs/train.py", *chosen], cwd=ROOT, env=ENVIRONMENT | {"RAY_ADDRESS": address}
        )

    @property
    def epochs(self) -> list[dict]:
        file = self.out / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def state(self) -> str:
        """The newest that Ray Train knows of."""
        try:
            said = json.loads((self.out / "stages/train/checkpoint_manager_snapshot.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # not yet, or just being written
            return ""
        return str(said["latest_checkpoint_result"]["checkpoint_dir_name"])

    def wait(self, happened: Callable[[], object], limit_s: float = 600) -> float:
        """Seconds until it happened."""
        begun = time.monotonic()
        while not happened():
            assert self.driver.poll() is None, "the run ended by itself"
            assert time.monotonic() - begun < limit_s
            time.sleep(0.05)
        return time.monotonic() - begun

    def wait_for_workers(self, count: int) -> float:
        """Seconds until an epoch was done by so many."""
        before = len(self.epochs)
        return self.wait(lambda: any(line["workers"] == count for line in self.epochs[before:]))


def test_nodes_come_and_go(
    cluster: object, metadata: str, make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cluster.add_node(num_cpus=1)
    second = cluster.add_node(num_cpus=1)
    run = Run(make_store(train=4, validation=3, frames=16), tmp_path / "run", cluster.address)
    try:
        run.wait_for_workers(2)

        # A notice: nothing but it saves a state within an epoch here. Then the node goes, as said.
        command = ["--address", cluster.address, "--node-id", second.node_id, "--deadline-remaining-seconds", "40"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(
            [sys.executable, "jobs/spot_notice.py", *command],
            check=True, cwd=ROOT, env=ENVIRONMENT | {"METADATA": metadata, "PATH": path},
        )  # fmt: skip
        saved_s = run.wait(lambda: "-step-" in run.state, limit_s=40)
        cluster.remove_node(second, allow_graceful=False)
        alone_s = run.wait_for_workers(1)

        third = cluster.add_node(num_cpus=1)
        grown_s = run.wait_for_workers(2)

        done = len(run.epochs)
        cluster.remove_node(third, allow_graceful=False)  # SIGKILL
        killed_s = run.wait_for_workers(1)
    finally:
        run.driver.kill()
        run.driver.wait()
    epochs = run.epochs
    assert [line["epoch"] for line in epochs] == list(range(len(epochs)))  # none lost, none twice
    assert {line["workers"] for line in epochs[done:]} == {1, 2} or {line["workers"] for line in epochs[done:]} == {1}
    assert max(line["loss"] for line in epochs[done:]) < 1.5 * epochs[0]["loss"]
    with capsys.disabled():
        print(
            f"\nsaved {saved_s:.1f} s after the notice, alone {alone_s:.1f} s after the node went, grown "
            f"{grown_s:.1f} s after one came, training {killed_s:.1f} s after a kill, load {os.getloadavg()[0]:.0f}"
        )
