"""Attempts: an input that crashes its process is rejected after a few, and a stalled process is ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aupipe.annotation.retry import attempt, reset_attempts
from aupipe.errors import TimedOutError, WorkerDiedError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

SCRIPT = """
import sys, time, ctypes
from aupipe.annotation import retry
from aupipe.storage import Storage
with retry.attempt(Storage(sys.argv[1]), "unit", 3, 0.4) as watch:
    if sys.argv[2] == "crash":
        ctypes.string_at(0)
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
    with pytest.raises(WorkerDiedError, match="died in 3 attempts"), attempt(Storage(tmp_path), "unit", 3, 1):
        pass
    reset_attempts(Storage(tmp_path))
    with attempt(Storage(tmp_path), "unit", 3, 1) as watch:
        assert watch.number == 1


def test_what_hangs_is_ended_and_what_is_slow_is_not(tmp_path: Path) -> None:
    assert run(tmp_path, "slow").stdout == "1\n"
    assert run(tmp_path, "hang").returncode == 1
    assert run(tmp_path, "deaf").returncode == 1
    with pytest.raises(WorkerDiedError), attempt(Storage(tmp_path), "unit", 2, 1):
        pass
    with (
        pytest.raises(TimedOutError, match="no progress for 1 s in 1 attempts"),
        attempt(Storage(tmp_path), "unit", 1, 1),
    ):
        pass


def test_an_error_is_no_death(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), attempt(Storage(tmp_path), "unit", 1, 1):
        raise ValueError("bad")
    assert Storage(tmp_path).names() == []
