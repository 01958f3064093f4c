"""One live run per output folder: a run writes a heartbeat there, and a second run that finds it ends with an error.

A heartbeat from another host or container may be the last one of a run that died, for example with its cluster. The
second run then waits until it is renewed, which is an error, or has expired.

This prevents a job from being started twice by mistake. It is not a lock, and no result depends on it, because two runs
of a job commit the same bytes.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.edge_errors import running, setting_up
from aupipe.errors import ConfigError, one_line, redact
from aupipe.periodic import periodically
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

HEARTBEAT = "_running.json"
_EVERY_S = 15.0
_STALE_S = 60.0
_POLL_S = 1.0
# A restarted container has the host name, and often the pid, of the one that died.
_PROCESS = uuid.uuid4().hex


@contextmanager
def run_lease(storage: Storage) -> Iterator[None]:
    """Write heartbeats to `storage` while the block runs.

    If the last heartbeat is of another host or container, first wait until it is 60 s old.

    Raises:
        ConfigError: another run is writing there.
    """
    with storage_errors_as_config_errors(storage.root):
        _wait_for_dead_run(storage)

    def beat() -> None:
        try:
            _beat(storage)
        except (OSError, BotoCoreError) as error:  # an outage of storage that lasts fails the work itself
            logger.warning("heartbeat not written to %s: %s", redact(storage.root), redact(str(error)))

    with setting_up(f"{storage.root} cannot be written"):
        _beat(storage)
    try:
        with running(), periodically(beat, _EVERY_S):
            yield
    finally:
        try:
            storage.delete(HEARTBEAT)
        except (OSError, BotoCoreError) as error:  # the run's own error explains the failure of storage better
            logger.warning(
                "%s/%s was not deleted; it expires in 60 s: %s",
                redact(storage.root),
                HEARTBEAT,
                redact(str(error)),
            )


@contextmanager
def storage_errors_as_config_errors(what: str) -> Iterator[None]:
    """Raise errors of storage in the block as errors of configuration.

    Raises:
        ConfigError: storage refused access, or was not found.
    """
    with setting_up(f"{what} cannot be reached"):
        yield


def _beat(storage: Storage) -> None:
    beat = {"host": socket.gethostname(), "pid": os.getpid(), "process": _PROCESS, "time": time.time()}
    storage.write(HEARTBEAT, json.dumps(beat | {"pids": _pids()}).encode())


def _pids() -> str:
    """Return the system's name of the pids that this process sees; "" if it has none.

    Containers that share the network of a machine have its host name, but pids of their own.
    """
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        return ""


def _is_here(beat: dict[str, Any]) -> bool:
    """Return whether the process of a heartbeat is, or was, one that this process could see."""
    return beat["host"] == socket.gethostname() and beat.get("pids", _pids()) == _pids()


def _wait_for_dead_run(storage: Storage) -> None:
    """Return when no run writes there; wait as long as that is unknown.

    Raises:
        ConfigError: another run is alive.
    """
    first = _last_heartbeat(storage)
    if first is None or _is_dead(first):
        return
    age_s = max(time.time() - first["time"], 0)  # the clock of another host may be ahead
    writer = f"process {first['pid']} on {first['host']}"
    if not _is_here(first):
        logger.info(
            "%s was written by %s %.0f s ago; waiting up to %.0f s, since that run may have died",
            redact(storage.root), writer, age_s, _STALE_S - age_s,
        )  # fmt: skip
        until = time.monotonic() + _STALE_S - age_s
        while (now := _last_heartbeat(storage)) == first and time.monotonic() < until:
            time.sleep(_POLL_S)
        if now is None or now == first:
            return
    raise ConfigError(f"{storage.root} is being written by {writer}; fix: wait until it ends, or give another --out")


def _last_heartbeat(storage: Storage) -> dict[str, Any] | None:
    """Return the heartbeat in a folder; None if there is none.

    Raises:
        ConfigError: it is damaged, so that it is unknown whether a run is alive.
    """
    try:
        beat = json.loads(storage.read(HEARTBEAT))
        return {**beat, "host": str(beat["host"]), "pid": int(beat["pid"]), "time": float(beat["time"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{storage.path(HEARTBEAT)} is damaged ({one_line(error)}); fix: delete it, unless another run is writing "
            "there"
        ) from None


def _is_dead(beat: dict[str, Any]) -> bool:
    """Return whether the run of a heartbeat is known to be dead: by its age, or because its process is gone."""
    restarted = beat["pid"] == os.getpid() and beat.get("process") != _PROCESS
    return time.time() - beat["time"] > _STALE_S or (_is_here(beat) and (restarted or not _alive(beat["pid"])))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # the process of another user
    return True
