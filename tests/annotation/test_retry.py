"""Attempts: an input that crashes its process is rejected after a few, and a stalled process is ended."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from aupipe.annotation.retry import attempt, reset_attempts
from aupipe.annotation.settings import LimitsConfig
from aupipe.errors import TimedOutError, WorkerDiedError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

SCRIPT = """
import os, sys, time, ctypes
from aupipe.annotation import retry
from aupipe.annotation.settings import LimitsConfig
from aupipe.storage import Storage
with retry.attempt(Storage(sys.argv[1]), "unit", LimitsConfig(attempts=3), 0.4) as watch:
    if sys.argv[2] == "crash":
        ctypes.string_at(0)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), 9)
    if sys.argv[2] == "hang":
        time.sleep(60)
    if sys.argv[2] == "deaf":  # holds the interpreter lock for ever
        retry._GRACE_S = 0.1
        watch.resume()
        ctypes.PyDLL(None).sleep(60)
    if sys.argv[2] == "slow":
        for _ in watch.through(range(6)):
            time.sleep(0.2)
        watch.pause()
        time.sleep(1)
        watch.resume()
print(watch.number)
"""


def run(folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_what_kills_its_process_is_refused_after_three_times(tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path, "crash").returncode < 0
    assert run(tmp_path, "well").stdout == "3\n"
    assert Storage(tmp_path).names() == []  # it ended well: nothing is held against it
    for _ in range(3):
        assert run(tmp_path, "crash").returncode < 0
    with (
        pytest.raises(WorkerDiedError, match="died in 3 attempts"),
        attempt(Storage(tmp_path), "unit", LimitsConfig(attempts=3), 1),
    ):
        pass
    reset_attempts(Storage(tmp_path))
    with attempt(Storage(tmp_path), "unit", LimitsConfig(attempts=3), 1) as watch:
        assert watch.number == 1


def test_what_hangs_is_ended_and_what_is_slow_is_not(tmp_path: Path) -> None:
    assert run(tmp_path, "slow").stdout == "1\n"
    assert run(tmp_path, "hang").returncode == 1
    assert run(tmp_path, "deaf").returncode == 1
    assert run(tmp_path, "killed").returncode < 0
    with (
        pytest.raises(TimedOutError, match="no progress for 1 s in 2 attempts"),
        attempt(Storage(tmp_path), "unit", LimitsConfig(attempts=2), 1),
    ):
        pass


def test_kills_are_no_evidence_against_the_input(tmp_path: Path) -> None:
    """A worker killed by the system is no crash: the limit of attempts does not count it."""
    for _ in range(3):
        assert run(tmp_path, "killed").returncode < 0
    assert run(tmp_path, "well").stdout == "4\n"
    for _ in range(3):
        assert run(tmp_path, "killed").returncode < 0
    with (
        pytest.raises(WorkerDiedError, match="was killed in 3 attempts"),
        attempt(Storage(tmp_path), "unit", LimitsConfig(kills=3), 1),
    ):
        pass


def test_on_object_storage_only_a_stall_is_evidence_against_the_input() -> None:
    """A worker or a node that dies leaves no traceback there, so its death counts as a kill, of which many pass."""
    storage = Storage(f"memory://retry-{uuid.uuid4().hex}")
    limits = LimitsConfig(attempts=2, kills=4)
    for number in (1, 2, 3):
        storage.write(f"_work/attempts/unit-{number}", b"started")
    with attempt(storage, "unit", limits, 60) as watch:
        assert watch.number == 4
    assert storage.names() == []  # success deletes the marks
    for text, expected in ((b"started", WorkerDiedError), (b"timed out", TimedOutError)):
        for number in range(1, 5):
            storage.write(f"_work/attempts/unit-{number}", text)
        with pytest.raises(expected), attempt(storage, "unit", limits, 60):
            pass


def test_a_crash_names_its_signal_and_the_handler_is_restored(tmp_path: Path) -> None:
    assert run(tmp_path, "crash").returncode < 0
    enabled = faulthandler.is_enabled()
    with (
        pytest.raises(WorkerDiedError, match=r"died in 1 attempts \(Segmentation fault\)"),
        attempt(Storage(tmp_path), "unit", LimitsConfig(attempts=1), 1),
    ):
        pass
    assert faulthandler.is_enabled() == enabled


def test_an_error_is_no_death(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), attempt(Storage(tmp_path), "unit", LimitsConfig(attempts=1), 1):
        raise ValueError("bad")
    assert Storage(tmp_path).names() == []
