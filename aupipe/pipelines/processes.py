"""The processes of a Ray that this job started: collected while they run, ended by pid if they outlive the job."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable

import ray  # noqa: F401  (it ships psutil and puts it on the path)

import psutil  # type: ignore[import-untyped]  # isort: skip

logger = logging.getLogger(__name__)

_POLL_S = 0.1


def children() -> set[psutil.Process]:
    """Return the direct child processes of this process."""
    return set(psutil.Process().children())


class ProcessTree:
    """Some root processes and all their descendants, also those whose parents have exited since.

    A worker of Ray is a child of the raylet, and is found only as long as the raylet runs. So `collect` has to be
    called repeatedly while Ray shuts down. A process is identified by its pid and start time: another program that
    gets the same pid later is never ended.
    """

    def __init__(self, roots: Iterable[psutil.Process]) -> None:
        self._found = set(roots)

    def collect(self) -> None:
        """Add the descendants that run now."""
        by_parent = defaultdict(list)
        for process in psutil.process_iter(["ppid"]):
            by_parent[process.info["ppid"]].append(process)
        todo = self.alive()
        while todo:
            new = [each for each in by_parent[todo.pop().pid] if each not in self._found]
            self._found.update(new)
            todo += new

    def alive(self) -> list[psutil.Process]:
        """Return the collected processes that still run."""
        return [each for each in self._found if _runs(each)]

    def end(self, grace_s: float) -> None:
        """Wait for the collected processes to exit, and kill those that still run after the grace period."""
        deadline = time.monotonic() + grace_s
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for process in left:
            logger.debug("process %d of the local Ray did not exit within %g s: killed", process.pid, grace_s)
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
