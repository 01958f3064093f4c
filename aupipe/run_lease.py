"""One live run an output: a run beats in the folder that it writes, and a second one that uses_audio it steps back.

This keeps people from starting a job twice; it is no lock, and no result depends on it: what a job commits is the same
whoever writes it.
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
# A container that was started again has the host name, and often the process number, of the one that died.
_PROCESS = uuid.uuid4().hex


@contextmanager
def run_lease(storage: Storage) -> Iterator[None]:
    """Hold `storage` for the length of the block.

    Raises:
        ConfigError: another run is writing there.
    """
    with storage_errors_as_config_errors(storage.root):
        held = _held(storage)
    if held is not None:
        raise ConfigError(f"{storage.root} is being written by {held}; wait for it to end, or name another --out")

    def beat() -> None:
        try:
            _beat(storage)
        except (OSError, BotoCoreError) as error:  # storage is away for a while; the work itself will tell
            logger.warning("no sign of life left in %s: %s", redact(storage.root), redact(str(error)))

    with setting_up(f"{storage.root} cannot be written"):
        _beat(storage)
    try:
        with running(), periodically(beat, _EVERY_S):
            yield
    finally:
        try:
            storage.delete(HEARTBEAT)
        except (OSError, BotoCoreError) as error:  # storage has failed, and the run's own error says more about it
            logger.warning(
                "%s/%s stays, and is void in a minute: %s", redact(storage.root), HEARTBEAT, redact(str(error))
            )


@contextmanager
def storage_errors_as_config_errors(what: str) -> Iterator[None]:
    """Raises:
    ConfigError: in the block, storage refused us or was not there.
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


def _held(storage: Storage) -> str | None:
    """Who is writing there; None if nobody is, or a run that died."""
    if not storage.exists(HEARTBEAT):
        return None
    beat = json.loads(storage.read(HEARTBEAT))
    age_s = time.time() - beat["time"]
    here = beat["host"] == socket.gethostname()
    reborn = beat["pid"] == os.getpid() and beat.get("process") != _PROCESS
    if age_s > _STALE_S or (here and (reborn or not _alive(beat["pid"]))):
        return None
    return f"process {beat['pid']} on {beat['host']} (heard {max(age_s, 0):.0f} s ago)"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True
