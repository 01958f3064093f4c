"""When nodes come and go: a cluster that scales, on this machine, with the node types of a cluster.yaml; but each node
is only a process.

ray.cluster_utils.AutoscalingCluster does not work from the wheel of Ray 2.60 (it reads a file that is not there), and
ends every Ray on the machine when it starts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from aupipe.benchmarks.clips import scene, write_clip
from aupipe.benchmarks.cluster import free_port
from aupipe.errors import AupipeError
from aupipe.pipelines.session import alive_pools, session, used_pools

HEAD = "ray.head.default"  # as the provider calls it
_HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # what the provider takes for the head
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider"
_STORE_BYTES = 100 * 2**20
_LISTS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
)  # fmt: skip


def measure(described: str, checkpoint: str) -> Iterator[dict[str, Any]]:
    """The nodes of each pool, and what is in use of them, whenever the nodes change, while annotate.py does eight clips
    and until all have gone. GPUs are asked for as on AWS, but models run on CPUs.
    """
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as name:
        folder = Path(name)
        for number in range(8):
            write_clip(folder / f"videos/{number}.mp4", scene(60, seed=number))
        with AutoscalingCluster(Path(described), folder / "ray", idle_s=20, cpus=2) as cluster:
            begun = time.monotonic()
            call = "import sys; from aupipe.commands.annotate import main; sys.exit(main(sys.argv[1:]))"
            job = [sys.executable, "-c", call, "--input", f"{folder}/videos", "--workers", "4"]
            job += ["--checkpoint", checkpoint, "--out", f"{folder}/out", "--set", "resources.pools=true"]
            job += ["--set", "resources.gpu=true", "--set", "resources.device=cpu"]
            running = subprocess.Popen(job, env=cluster.environment)
            try:
                for pools, used in cluster.changes(until=lambda now: running.poll() is not None and not now):
                    ended = running.poll() is not None
                    at_s = round(time.monotonic() - begun, 1)
                    yield {"at_s": at_s, "nodes": pools, "most_used": used, "job_ended": ended}
            finally:
                running.kill()
            if running.wait():
                raise AupipeError(f"annotate.py exited {running.returncode}")


class AutoscalingCluster:
    """A head without CPUs and an autoscaler; `environment` leads a job to it.

    Args:
        described: path of a cluster.yaml; of its node types count resources, labels and how many there may be.
        folder: for Ray's files; a short path, since Ray puts sockets below it.
        idle_s: after so long a node goes.
        cpus: a node's, so that several fit on this machine.
    """

    def __init__(self, described: Path, folder: Path, *, idle_s: float, cpus: int) -> None:
        self._folder = folder
        self._types = _node_types(yaml.safe_load(described.read_text()), idle_s, cpus)
        self._port = free_port()
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": f"{socket.gethostbyname(socket.gethostname())}:{self._port}"
        }  # fmt: skip

    def __enter__(self) -> AutoscalingCluster:
        self._folder.mkdir()
        config = self._folder / "autoscaling.json"
        config.write_text(json.dumps(self._config(_HEAD_ID)))
        environment = self.environment | {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": _HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
        }  # fmt: skip
        environment.pop("RAY_ADDRESS")
        options = [f"--port={self._port}", f"--autoscaling-config={config}", "--num-cpus=0", "--num-gpus=0"]
        options += [f"--object-store-memory={_STORE_BYTES}", "--include-dashboard=false", f"--temp-dir={self._folder}"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", *options]
        started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if started.returncode:
            self._end()
            raise AupipeError(f"no Ray came up: {(started.stdout + started.stderr)[-300:]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def changes(
        self, until: Callable[[dict[str, int]], bool]
    ) -> Iterator[tuple[dict[str, int], dict[str, Counter[str]]]]:
        """Nodes by pool, now and after each change, and the most that was in use of each pool since the last one."""
        os.environ |= {name: self.environment[name] for name in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
        with session(log_to_driver=False):
            before = None
            most: dict[str, Counter[str]] = {}
            while True:
                now = alive_pools()
                for pool, used in used_pools().items():
                    most[pool] = used | most.get(pool, Counter())
                if now != before:
                    yield now, most
                    most = {}
                before = now
                if until(now):
                    return
                time.sleep(0.5)

    def _config(self, head_id: str) -> dict[str, Any]:
        provider = {
            "type": "external", "module": f"{_PROVIDER}.FakeMultiNodeProvider", "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True, "launch_multiple": True,
            "head_node_id": head_id, "gcs_address": self.environment["RAY_ADDRESS"],
        }  # fmt: skip
        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        return {
            "cluster_name": "fake", "provider": provider, "auth": {}, "docker": {}, "file_mounts": {},
            "file_mounts_sync_continuously": False, "upscaling_speed": 1.0, "idle_timeout_minutes": 5,
            "max_workers": sum(kind["max_workers"] for kind in self._types.values()), "head_node_type": HEAD,
            "available_node_types": {HEAD: head, **self._types},
            **{key: [] for key in _LISTS},
        }  # fmt: skip

    def _end(self) -> None:
        """End what has this cluster's folder in its command line, and nothing else."""
        while left := [process for process in _processes() if str(self._folder).encode() in _command(process)]:
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)


def _node_types(described: dict[str, Any], idle_s: float, cpus: int) -> dict[str, Any]:
    types = {}
    for name, kind in described["available_node_types"].items():
        if name != described["head_node_type"]:
            resources = {**kind["resources"], "CPU": cpus, "object_store_memory": _STORE_BYTES}
            kept = {key: kind[key] for key in ("labels", "min_workers", "max_workers")}
            types[name] = {**kept, "resources": resources, "node_config": {}, "idle_timeout_s": idle_s}
    return types


def _processes() -> Iterator[int]:
    return (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
