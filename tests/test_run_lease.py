import json
import os
import socket
import subprocess
import sys
import time

import pytest

from aupipe import run_lease
from aupipe.errors import ConfigError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def beat(storage, host="elsewhere", pid=1, ago_s=0.0):
    storage.write(run_lease.HEARTBEAT, json.dumps({"host": host, "pid": pid, "time": time.time() - ago_s}).encode())


def test_a_second_run_steps_back_and_the_first_leaves_nothing(tmp_path):
    storage = Storage(tmp_path)
    with run_lease.run_lease(storage):
        with pytest.raises(ConfigError, match=r"is being written by process \d+ on"), run_lease.run_lease(storage):
            pass
        assert storage.exists(run_lease.HEARTBEAT)
    assert storage.names() == []


def test_a_run_elsewhere_counts_as_dead_after_a_minute(tmp_path):
    storage = Storage(tmp_path)
    beat(storage, ago_s=50)
    with pytest.raises(ConfigError, match="process 1 on elsewhere"), run_lease.run_lease(storage):
        pass
    beat(storage, ago_s=61)
    with run_lease.run_lease(storage):
        pass


def test_a_process_that_died_here_holds_nothing(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    beat(Storage(tmp_path), host=socket.gethostname(), pid=dead.pid)
    with run_lease.run_lease(Storage(tmp_path)):
        pass


def test_a_container_started_again_does_not_take_its_own_dead_beat_for_another_run(tmp_path):
    beat(Storage(tmp_path), host=socket.gethostname(), pid=os.getpid())
    with run_lease.run_lease(Storage(tmp_path)):
        pass


def test_it_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lease, "_EVERY_S", 0.02)
    storage = Storage(tmp_path)
    with run_lease.run_lease(storage):
        first = storage.read(run_lease.HEARTBEAT)
        until = time.monotonic() + 10
        while storage.read(run_lease.HEARTBEAT) == first and time.monotonic() < until:
            time.sleep(0.01)
        assert storage.read(run_lease.HEARTBEAT) != first


def test_storage_that_is_away_for_a_while_does_not_end_the_beating(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lease, "_EVERY_S", 0.02)
    beat_, beats = run_lease._beat, []

    def sometimes(storage):
        beats.append(1)
        if len(beats) == 2:
            raise ConnectionResetError("away")
        beat_(storage)

    monkeypatch.setattr(run_lease, "_beat", sometimes)
    with run_lease.run_lease(Storage(tmp_path)):
        until = time.monotonic() + 10
        while len(beats) < 4 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(beats) >= 4
