"""Processes that outlive their parents are ended by pid, and no others."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from aupipe.pipelines import processes

pytestmark = pytest.mark.unit

_IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
_PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {_IGNORES!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.readline()
"""


def test_a_descendant_whose_parent_exited_is_ended_and_another_process_is_not() -> None:
    other = subprocess.Popen([sys.executable, "-c", _IGNORES], stdout=subprocess.PIPE)
    before = processes.children()
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
        tree = processes.ProcessTree(processes.children() - before)
        tree.collect()
        assert {each.pid for each in tree.alive()} == {parent.pid, pid}
        parent.communicate("\n", timeout=60)
        assert [each.pid for each in tree.alive()] == [pid]
        start = time.monotonic()
        tree.end(grace_s=0.5)
        assert time.monotonic() - start >= 0.5
        while tree.alive() and time.monotonic() - start < 30:
            time.sleep(0.05)
        assert tree.alive() == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_processes_that_exit_by_themselves_are_not_waited_for() -> None:
    before = processes.children()
    child = subprocess.Popen([sys.executable, "-c", ""])
    tree = processes.ProcessTree(processes.children() - before)
    child.wait()
    start = time.monotonic()
    tree.end(grace_s=60)
    assert time.monotonic() - start < 30
