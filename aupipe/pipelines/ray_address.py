"""Which Ray a job runs on: the cluster that RAY_ADDRESS names, checked within seconds, or a local one."""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aupipe.errors import ConfigError, redact

_UNSET = "or `unset RAY_ADDRESS` to run on this machine"
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # which Ray sets for the driver of a submitted job
_ANSWER_S = 10
# A socket's path has at most 107 bytes, of which Ray's own names, session_DATE_TIME_PID/sockets/plasma_store, take 66.
_FOLDER_BYTES = 107 - 66
_OPEN_FILES = 1024
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

# Asks a cluster who it is, in a process of its own: Ray's client waits 40 s for what does not answer, and cannot be
# interrupted. The exit code is the answer; the seconds count from when Ray is imported, which may take long by itself.
_PROBE = f"""
import os, socket, sys, threading
import ray
from ray._common.usage.usage_lib import get_cluster_metadata
from ray._private import services
from ray._raylet import GcsClient
threading.Timer({_ANSWER_S}, os._exit, (9,)).start()
try:
    address = services.canonicalize_bootstrap_address(sys.argv[1])  # of this machine: another than 127.0.0.1
    host, port = (address if sys.argv[1] == "auto" else sys.argv[1]).rsplit(":", 1)
    socket.create_connection((host.strip("[]"), int(port)), {_ANSWER_S}).close()
    version = (get_cluster_metadata(GcsClient(address=address)) or {{}}).get("ray_version", ray.__version__)
    print(f"\\n{{version}}", flush=True)
    code = 0 if version == ray.__version__ else 8
except BaseException as error:
    print(f"\\n{{type(error).__name__}}: {{' '.join(str(error).split())}}", flush=True)
    code = 7
os._exit(code)
"""


def cluster_address() -> str | None:
    """Return the address of the cluster to join, once it has answered; None: a local Ray is to be started.

    Raises:
        ConfigError: RAY_ADDRESS names no cluster that this process can join.
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
    if _SUBMITTED not in os.environ:  # Ray gave a submitted job its address
        _check_answers(address, named)
    return address


def job_environment(wanted: dict[str, str]) -> dict[str, str]:
    """Return the variables that a job is still to be given; Ray refuses those that its submission gave already."""
    submitted = json.loads(os.environ.get(_SUBMITTED) or "{}").get("runtime_env") or {}
    return {name: value for name, value in wanted.items() if name not in submitted.get("env_vars", {})}


@contextmanager
def local_options() -> Iterator[dict[str, Any]]:
    """Yield the options with which a local Ray can start, whatever TMPDIR and HOME are.

    Sockets go to a short folder of the user's own if those of TMPDIR would be too long or cannot be written; it is
    deleted at the end. What does not fit the object store still goes below TMPDIR. The token of the local Ray is kept
    in memory if there is no file of it, so that nothing is written below HOME.

    Raises:
        ConfigError: no folder can be written, or too few files can be open, with which Ray would wait for ever.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the hard limit: Ray raises the other one itself
    if most != resource.RLIM_INFINITY and most < _OPEN_FILES:
        raise ConfigError(f"limit on open files: {most} ({_OPEN_FILES} or more); fix: `ulimit -Hn 65536` as root")
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")) and not _saved_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # kept for the process: Ray remembers the first one
    top = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    writable = _can_write(os.path.join(top, "ray"))
    if writable and len(os.fsencode(os.path.join(top, "ray"))) <= _FOLDER_BYTES:
        yield {}
        return
    folder = next((made for each in _SHORT_FOLDERS if (made := _own_folder(each))), None)
    if folder is None:
        raise ConfigError(
            f"temporary folder: {top}, {', '.join(_SHORT_FOLDERS)} (one that can be written, of at most "
            f"{_FOLDER_BYTES - 4} bytes); fix: export RAY_TMPDIR=FOLDER"
        )
    try:
        yield {"_temp_dir": folder} | ({"object_spilling_directory": os.path.abspath(top)} if writable else {})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_answers(address: str, named: str) -> None:
    command = [sys.executable, "-c", _PROBE, address]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    answer = (done.stdout.splitlines() or [""])[-1]
    if done.returncode == 0:
        return
    if done.returncode == 8:
        import ray

        raise ConfigError(
            f"{named} has Ray {answer} (Ray {ray.__version__}); fix: install one of the two on both sides"
        )
    if answer.startswith("AuthenticationError"):
        raise ConfigError(
            f"{named} wants its own token; fix: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
    reason = answer if done.returncode == 7 else f"no answer within {_ANSWER_S} s"
    if address == "auto" and answer.startswith("ConnectionError"):
        reason = "no Ray runs on this machine"
    raise ConfigError(
        f"{named} is no cluster that answers: {reason} (HOST:PORT of its head); fix: correct it, {_UNSET}"
    )


def _saved_token() -> bool:
    try:
        return bool((Path.home() / ".ray" / "auth_token").read_bytes().strip())
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False


def _can_write(folder: str) -> bool:
    """Whether files can be made in `folder`, which is made if it is not there: other users' folders, full disks."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError:
        return False
    return True


def _own_folder(parent: str) -> str | None:
    """Make a folder that only this user can enter; None if that cannot be."""
    try:
        folder = tempfile.mkdtemp(prefix="aupipe-", dir=parent)
    except OSError:
        return None
    if _can_write(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return None
