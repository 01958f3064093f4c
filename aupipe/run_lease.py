"""One live run per output folder: a run writes a heartbeat there, and a second run that finds it ends with an error.

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

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.edge_errors import running, setting_up
from aupipe.errors import ConfigError, redact
from aupipe.periodic import periodically
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

HEARTBEAT = "_running.json"
_EVERY_S = 15.0
_STALE_S = 60.0
# A restarted container has the host name, and often the pid, of the one that died.
_PROCESS = uuid.uuid4().hex


@contextmanager
def run_lease(storage: Storage) -> Iterator[None]:
    """Write heartbeats to `storage` while the block runs.

    Raises:
        ConfigError: another run is writing there.
    """
    with storage_errors_as_config_errors(storage.root):
        writer = _live_writer(storage)
    if writer is not None:
        raise ConfigError(
            f"{storage.root} is being written by {writer}; fix: wait until it ends, or give another --out"
        )

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
    storage.write(
        HEARTBEAT,
        json.dumps(
            {"host": socket.gethostname(), "pid": os.getpid(), "process": _PROCESS, "time": time.time()}
        ).encode(),
    )


def _live_writer(storage: Storage) -> str | None:
    """Return the process and host that write there; None if there is no run, or only one that died."""
    if not storage.exists(HEARTBEAT):
        return None
    beat = json.loads(storage.read(HEARTBEAT))
    age_s = time.time() - beat["time"]
    same_host = beat["host"] == socket.gethostname()
    restarted = beat["pid"] == os.getpid() and beat.get("process") != _PROCESS
    if age_s > _STALE_S or (same_host and (restarted or not _alive(beat["pid"]))):
        return None
    return f"process {beat['pid']} on {beat['host']} (heartbeat {max(age_s, 0):.0f} s ago)"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # the process of another user
    return True
