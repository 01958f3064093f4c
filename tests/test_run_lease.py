import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from aupipe import run_lease
from aupipe.errors import ConfigError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def beat(storage, host="elsewhere", pid=1, ago_s=0.0):
    storage.write(run_lease.HEARTBEAT, json.dumps({"host": host, "pid": pid, "time": time.time() - ago_s}).encode())


def test_a_second_run_is_refused_and_the_first_deletes_its_heartbeat(tmp_path):
    storage = Storage(tmp_path)
    with run_lease.run_lease(storage):
        with pytest.raises(ConfigError, match=r"is being written by process \d+ on"), run_lease.run_lease(storage):
            pass
        assert storage.exists(run_lease.HEARTBEAT)
    assert storage.names() == []


def test_a_run_elsewhere_that_died_is_waited_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run_lease, "_POLL_S", 0.01)
    storage = Storage(tmp_path)
    beat(storage, ago_s=59.4)
    begun = time.monotonic()
    with caplog.at_level("INFO"), run_lease.run_lease(storage):
        assert 0.4 < time.monotonic() - begun < 30
    assert re.search(r"process 1 on elsewhere 59 s ago; waiting up to 1 s", caplog.text)
    beat(storage, ago_s=61)
    monkeypatch.setattr(run_lease.time, "sleep", lambda seconds: pytest.fail("waited for a stale heartbeat"))
    with run_lease.run_lease(storage):
        pass


@pytest.mark.parametrize("ahead_s", [0, 100])
def test_a_run_elsewhere_that_lives_is_an_error(tmp_path, monkeypatch, ahead_s):
    monkeypatch.setattr(run_lease, "_POLL_S", 0.01)
    storage = Storage(tmp_path)
    beat(storage, ago_s=-ahead_s)
    renewed = threading.Timer(0.3, beat, (storage,), {"ago_s": -ahead_s})
    renewed.start()
    with pytest.raises(ConfigError, match="being written by process 1 on elsewhere"), run_lease.run_lease(storage):
        pass
    assert storage.names() == [run_lease.HEARTBEAT]
    renewed.join()


def test_a_run_elsewhere_that_ends_meanwhile_is_succeeded(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lease, "_POLL_S", 0.01)
    storage = Storage(tmp_path)
    beat(storage)
    ended = threading.Timer(0.3, storage.delete, (run_lease.HEARTBEAT,))
    ended.start()
    begun = time.monotonic()
    with run_lease.run_lease(storage):
        assert time.monotonic() - begun < 30
    ended.join()


@pytest.mark.parametrize(("ago_s", "is_refused"), [(5, True), (61, False)])
def test_another_process_of_this_host_writes_while_its_heartbeat_is_fresh(tmp_path, ago_s, is_refused):
    """After a restart of the machine, another process may have the pid of the run that died."""
    storage = Storage(tmp_path)
    beat(storage, socket.gethostname(), os.getppid(), ago_s)
    expected = pytest.raises(ConfigError, match="being written") if is_refused else contextlib.nullcontext()
    with expected, run_lease.run_lease(storage):
        pass


def test_a_process_that_died_on_this_host_is_ignored(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    beat(Storage(tmp_path), host=socket.gethostname(), pid=dead.pid)
    with run_lease.run_lease(Storage(tmp_path)):
        pass


def test_a_restarted_container_ignores_the_heartbeat_of_its_predecessor(tmp_path):
    beat(Storage(tmp_path), host=socket.gethostname(), pid=os.getpid())
    with run_lease.run_lease(Storage(tmp_path)):
        pass


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1])  # that of this process, and one that is not there
def test_the_pids_of_another_container_on_this_host_are_not_those_of_this_one(tmp_path, monkeypatch, pid):
    monkeypatch.setattr(run_lease, "_POLL_S", 0.01)
    storage, own = Storage(tmp_path), {"host": socket.gethostname(), "pid": pid, "pids": "pid:[1]"}
    storage.write(run_lease.HEARTBEAT, json.dumps(own | {"time": time.time()}).encode())
    renewed = threading.Timer(0.3, beat, (storage,))
    renewed.start()
    with pytest.raises(ConfigError, match="being written by process"), run_lease.run_lease(storage):
        pass
    renewed.join()


@pytest.mark.parametrize(
    "data",
    [b"", b'{"host": "a", "pid": 1, "ti', b'{"host": "a", "pid": 1}', b'{"host": "a", "pid": 1, "time": "?"}', b"null",
     b"[1]", b"\xff\0", b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_heartbeat_is_one_sentence(tmp_path, data):
    storage = Storage(tmp_path)
    storage.write(run_lease.HEARTBEAT, data)
    lease = run_lease.run_lease(storage)
    with pytest.raises(ConfigError, match=r"^/.*/_running\.json is damaged \(.+\); fix: delete it, unless"), lease:
        pass
    assert storage.read(run_lease.HEARTBEAT) == data


def test_heartbeats_are_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lease, "_EVERY_S", 0.02)
    storage = Storage(tmp_path)
    with run_lease.run_lease(storage):
        first = storage.read(run_lease.HEARTBEAT)
        until = time.monotonic() + 10
        while storage.read(run_lease.HEARTBEAT) == first and time.monotonic() < until:
            time.sleep(0.01)
        assert storage.read(run_lease.HEARTBEAT) != first


def test_an_outage_of_storage_does_not_end_the_heartbeats(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lease, "_EVERY_S", 0.02)
    beat_, beats = run_lease._beat, []

    def fails_once(storage):
        beats.append(1)
        if len(beats) == 2:
            raise ConnectionResetError("outage")
        beat_(storage)

    monkeypatch.setattr(run_lease, "_beat", fails_once)
    with run_lease.run_lease(Storage(tmp_path)):
        until = time.monotonic() + 10
        while len(beats) < 4 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(beats) >= 4


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which none can be created")
def test_a_folder_that_cannot_be_created_is_one_sentence():
    lease = run_lease.run_lease(Storage("/proc/aupipe"))
    with pytest.raises(ConfigError, match=r"/proc/aupipe cannot be created: No such file"), lease:
        pass
