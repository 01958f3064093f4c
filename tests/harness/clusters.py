"""A Ray cluster of two nodes on this machine. Its nodes are processes, so that parts of it can be killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from aupipe.errors import AupipeError
from harness import processes

_START_S = 120
_HOST = "127.0.0.1"
_NODE = ["--num-cpus=2", "--object-store-memory=200000000", f"--node-ip-address={_HOST}", "--block"]
# Ray detects a lost node after about five seconds instead of half a minute.
_QUICK = (
    '--system-config={"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, '
    '"health_check_timeout_ms": 3000, "health_check_failure_threshold": 5}'
)


class Cluster:
    """A head and a second node of two logical CPUs each. A job with the variables of `environment` runs on it.

    Args:
        folder: folder for Ray's files; its path must be short because Ray creates sockets in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = open(folder / "ray.log", "w")  # noqa: SIM115
        self.environment = os.environ | {"RAY_AUTH_MODE": "disabled"}

    def __enter__(self) -> Cluster:
        head = ["--head", "--port=0", f"--ray-client-server-port={free_port()}", "--include-dashboard=false", _QUICK]
        self._head = self._start(*head, f"--temp-dir={self._folder}/ray")
        address = self._folder / "ray" / "ray_current_cluster"
        deadline = time.monotonic() + _START_S
        while not (address.exists() and address.read_text()):
            if self._head.poll() is not None or time.monotonic() > deadline:
                processes.end(self._head.pid)
                raise AupipeError(f"Ray did not start: {(self._folder / 'ray.log').read_text()[-300:]}")
            time.sleep(0.1)
        self.environment |= {"RAY_ADDRESS": address.read_text()}
        self._second = self._start(f"--address={address.read_text()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in (self._second, self._head):
            processes.end(node.pid)
            node.wait()
        self._log.close()

    def workers(self) -> dict[int, str]:
        """Return the titles of Ray's workers and actors on both nodes, by process number."""
        found = processes.of_session(self._head.pid) | processes.of_session(self._second.pid)
        return {process: title for process, title in found.items() if title.startswith("ray::")}

    @property
    def second_raylet(self) -> int | None:
        """Number of the process that manages the second node."""
        found = processes.of_session(self._second.pid)
        return next((process for process, title in found.items() if "/raylet/raylet " in title), None)

    def replace_second(self) -> None:
        """End the remaining processes of the second node, and start a node that replaces it."""
        processes.end(self._second.pid)
        self._second.wait()
        self._second = self._start(f"--address={self.environment['RAY_ADDRESS']}")

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("ray")), "start", *options, *_NODE]
        return subprocess.Popen(
            command, env=self.environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port: int = free.getsockname()[1]
        return port
