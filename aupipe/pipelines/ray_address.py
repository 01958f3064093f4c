"""The choice of the Ray that a job runs on: the cluster in RAY_ADDRESS, checked within seconds, or a local one."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aupipe.errors import ConfigError, redact
from aupipe.pipelines import ray_internals

_UNSET = "or `unset RAY_ADDRESS` to run on this machine"
_CONNECT_TIMEOUT_S = 1.5
_LAST_PORT = 65535
_RESPONSE_TIMEOUT_S = 10
# The path of a socket has at most 107 bytes. Ray's own names, session_DATE_TIME_PID/sockets/plasma_store, take 66.
_FOLDER_BYTES = 107 - 66
_OPEN_FILES = 1024
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def cluster_address() -> str | None:
    """Return the address of the cluster to join after it has responded; None: start a local Ray.

    Raises:
        ConfigError: RAY_ADDRESS names no cluster that this process can join.
    """
    address = check_address()
    if address is not None and ray_internals.submitted_variables() is None:
        _check_responds(address, f"RAY_ADDRESS: {redact(address)}")
    return address


def check_address() -> str | None:
    """Return RAY_ADDRESS, None for a local Ray, after the checks that take under 2 s and do not import Ray.

    Raises:
        ConfigError: RAY_ADDRESS is of another kind, or nothing accepts connections there.
    """
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if address in ("", "local"):
        return None
    named = f"RAY_ADDRESS: {redact(address)}"
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"{named} (for a direct run HOST:PORT or nothing; an HTTP address is where jobs are submitted); "
            f"fix: `ray job submit --working-dir . -- python jobs/…`, {_UNSET}"
        )
    if "://" in address:
        raise ConfigError(
            f"{named} (HOST:PORT; Ray Client cannot run Ray Data); "
            f"fix: run it on a node of the cluster, submit it with `ray job submit`, {_UNSET}"
        )
    host, colon, port = address.rpartition(":")
    # Ray itself sets the address of a submitted job, and finds the one that `auto` means.
    if ray_internals.submitted_variables() is None and address != "auto":
        if not colon or not port.isdecimal() or int(port) > _LAST_PORT:
            raise ConfigError(f"{named} (HOST:PORT of a cluster's head); fix: correct it, {_UNSET}")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
        except OSError as error:
            reason = f"{type(error).__name__}: {error.strerror or error}"
            raise ConfigError(
                f"{named} is no cluster that responds: {reason} (HOST:PORT of its head); fix: correct it, {_UNSET}"
            ) from None
    return address


def dashboard_hosts(address: str | None) -> list[str]:
    """Return the names under which the dashboard of the cluster at `address`, or of a local Ray, may be asked.

    Ray asks it at the IP address of its machine unless it listens on 127.0.0.1 alone, whatever RAY_ADDRESS names.
    """
    import ray.util

    hosts = ["127.0.0.1", ray.util.get_node_ip_address()]
    if head := (address or "").rpartition(":")[0].strip("[]"):
        hosts.append(head)
        with suppress(OSError):
            hosts.append(socket.gethostbyname(head))
    return list(dict.fromkeys(hosts))


def job_environment(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables that the job's submission has not set. Ray refuses a variable that is set twice."""
    submitted = ray_internals.submitted_variables() or ()
    return {name: value for name, value in variables.items() if name not in submitted}


@contextmanager
def local_options() -> Iterator[dict[str, Any]]:
    """Yield the options with which a local Ray starts, whatever TMPDIR and HOME are.

    If the paths of sockets below TMPDIR would be too long or cannot be written, sockets go to a short folder that only
    this user can enter. It is deleted at the end. Objects that do not fit the object store still go below TMPDIR. The
    token of the local Ray is kept in memory unless a file with one exists, so that nothing is written below HOME.

    Raises:
        ConfigError: no folder can be written, or too few files can be open, because Ray would then wait for ever.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the hard limit, because Ray raises the soft limit itself
    if most != resource.RLIM_INFINITY and most < _OPEN_FILES:
        raise ConfigError(f"limit on open files: {most} ({_OPEN_FILES} or more); fix: `ulimit -Hn 65536` as root")
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")) and not _saved_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # never deleted, because Ray caches the first token
    top = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    writable = _can_write(os.path.join(top, "ray"))
    if writable and len(os.fsencode(os.path.join(top, "ray"))) <= _FOLDER_BYTES:
        yield {}
        return
    folder = next((made for each in _SHORT_FOLDERS if (made := _private_folder(each))), None)
    if folder is None:
        raise ConfigError(
            f"temporary folder: {top}, {', '.join(_SHORT_FOLDERS)} (one that can be written, of at most "
            f"{_FOLDER_BYTES - 4} bytes); fix: export RAY_TMPDIR=FOLDER"
        )
    try:
        spilling = {"object_spilling_directory": os.path.abspath(top)} if writable else {}
        yield ray_internals.temporary_folder(folder) | spilling
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_responds(address: str, named: str) -> None:
    command = [sys.executable, "-c", ray_internals.version_probe(_RESPONSE_TIMEOUT_S), address]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    response = (done.stdout.splitlines() or [""])[-1]
    if done.returncode == 0:
        return
    if done.returncode == 8:
        import ray

        raise ConfigError(
            f"{named} has Ray {response} (Ray {ray.__version__}); fix: install one of the two on both sides"
        )
    if response.startswith("AuthenticationError"):
        raise ConfigError(
            f"{named} requires its own token; fix: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
    reason = response if done.returncode == 7 else f"no response within {_RESPONSE_TIMEOUT_S} s"
    if address == "auto" and response.startswith("ConnectionError"):
        reason = "no Ray runs on this machine"
    raise ConfigError(
        f"{named} is no cluster that responds: {reason} (HOST:PORT of its head); fix: correct it, {_UNSET}"
    )


def _saved_token() -> bool:
    try:
        return bool((Path.home() / ".ray" / "auth_token").read_bytes().strip())
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return False


def _can_write(folder: str) -> bool:
    """Return whether files can be written in `folder`, which is created if it does not exist."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError:
        return False
    return True


def _private_folder(parent: str) -> str | None:
    """Create a folder that only this user can enter and return it; None if that is impossible."""
    try:
        folder = tempfile.mkdtemp(prefix="aupipe-", dir=parent)
    except OSError:
        return None
    if _can_write(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return None
