"""Nodes that join and leave: an autoscaling cluster on this machine with the node types of a cluster.yaml.

Each node is only a process. ray.cluster_utils.AutoscalingCluster is not used: from the wheel of Ray 2.60 it fails
because it reads a missing file, and it ends every Ray on the machine when it starts.
"""

from __future__ import annotations

import json
import os
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

from aupipe.errors import AupipeError
from aupipe.pipelines.session import alive_pools, session, used_pools
from harness import processes
from harness.clips import scene, write_clip
from harness.clusters import free_port

HEAD = "ray.head.default"  # the provider's name for the head
_HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # the provider's id of the head
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider"
_STORE_BYTES = 100 * 2**20
_LISTS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
)  # fmt: skip


def measure(cluster_file: str, checkpoint: str) -> Iterator[dict[str, Any]]:
    """Yield the nodes of each pool and the resources in use, at each change, until the last node has left.

    Meanwhile annotate.py runs on eight clips. It requests GPUs as on AWS, but models run on CPUs.
    """
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as name:
        folder = Path(name)
        for number in range(8):
            write_clip(folder / f"videos/{number}.mp4", scene(60, seed=number))
        with AutoscalingCluster(Path(cluster_file), folder / "ray", idle_s=20, cpus=2) as cluster:
            begun = time.monotonic()
            job = processes.command("annotate", "--input", f"{folder}/videos", "--workers", "4")
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
    """A head without CPUs, and an autoscaler. A job with the variables of `environment` runs on it.

    Args:
        cluster_file: path of a cluster.yaml or a RayJob. Resources, labels and limits on numbers are read from it.
        folder: folder for Ray's files; its path must be short because Ray creates sockets in it.
        idle_s: seconds after which an idle node leaves.
        cpus: CPUs of a node; few, so that several nodes fit on this machine.
        update_s: interval at which the autoscaler starts nodes; the first one starts after up to as long.
    """

    def __init__(self, cluster_file: Path, folder: Path, *, idle_s: float, cpus: int, update_s: int = 1) -> None:
        self._folder, self._update_s = folder, update_s
        self._types = _node_types(yaml.safe_load(cluster_file.read_text()), idle_s, cpus)
        self._port = free_port()
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": f"{socket.gethostbyname(socket.gethostname())}:{self._port}"
        }  # fmt: skip

    def __enter__(self) -> AutoscalingCluster:
        self._folder.mkdir()
        config = self._folder / "autoscaling.json"
        config.write_text(json.dumps(self._config(_HEAD_ID)))
        environment = self.environment | {
            "AUTOSCALER_UPDATE_INTERVAL_S": str(self._update_s), "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
        }  # fmt: skip
        environment.pop("RAY_ADDRESS")
        options = [f"--port={self._port}", f"--autoscaling-config={config}", "--num-cpus=0", "--num-gpus=0"]
        options += [f"--object-store-memory={_STORE_BYTES}", "--include-dashboard=false", f"--temp-dir={self._folder}"]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", *options]
        started = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if started.returncode:
            self._end()
            raise AupipeError(f"Ray did not start: {(started.stdout + started.stderr)[-300:]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def changes(
        self, until: Callable[[dict[str, int]], bool]
    ) -> Iterator[tuple[dict[str, int], dict[str, Counter[str]]]]:
        """Yield the nodes by pool, now and after each change, and the peak use of each pool since the last change."""
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
        """Kill the processes that have this cluster's folder in their command lines."""
        while left := [p for p in processes.pids() if str(self._folder) in processes.command_line(p)]:
            processes.kill(left)
            time.sleep(0.1)


def _node_types(cluster: dict[str, Any], idle_s: float, cpus: int) -> dict[str, Any]:
    """Return the worker types of a cluster.yaml or a RayJob, reduced to nodes that are processes."""
    if "spec" in cluster:
        cluster = {"head_node_type": None, "available_node_types": _groups(cluster["spec"]["rayClusterSpec"])}
    types = {}
    for name, kind in cluster["available_node_types"].items():
        if name != cluster["head_node_type"]:
            resources = {**kind["resources"], "CPU": cpus, "object_store_memory": _STORE_BYTES}
            copied = {key: kind[key] for key in ("labels", "min_workers", "max_workers")}
            types[name] = {**copied, "resources": resources, "node_config": {}, "idle_timeout_s": idle_s}
    return types


def _groups(cluster: dict[str, Any]) -> dict[str, Any]:
    """Return the worker groups of a RayJob as node types of a cluster.yaml."""
    types = {}
    for group in cluster["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        types[group["groupName"]] = {
            "resources": {"GPU": int(container["resources"]["limits"].get("nvidia.com/gpu", 0))},
            "labels": group["labels"], "min_workers": group["minReplicas"], "max_workers": group["maxReplicas"],
        }  # fmt: skip
    return types
