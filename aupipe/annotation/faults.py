"""Errors that quarantine one input: those of its file, and internal errors while it is processed.

OUT/_logs/internal_error-KEY.txt      the traceback of an input that is quarantined with `internal_error`
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

import aupipe
from aupipe.annotation.settings import content_hash
from aupipe.errors import (
    ChangedError,
    EnvironmentFailure,
    MediaError,
    NotFoundError,
    PermissionDeniedError,
    TimedOutError,
    WorkerDiedError,
    as_reason,
    redact,
)
from aupipe.media import input_errors
from aupipe.storage import Storage, is_transient

INTERNAL_ERROR = "internal_error"
_UNREACHABLE = (NotFoundError.reason, PermissionDeniedError.reason, MediaError.reason)
LOGS = "_logs"
INPUT_ERRORS = input_errors.INPUT_ERRORS
# Errors of the machine: a full disk, including that of temporary files, or too many open files.
_SHORT_OF = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
_LONGEST_MESSAGE = 300  # characters, because some libraries print a whole array


@dataclass
class FaultOutcome:
    """The outcome of a block in `contain_fault`.

    Attributes:
        reason: why it failed; "" if nothing was raised.
        worker_died: the input crashed or stalled its workers, or they were killed.
    """

    reason: str = ""
    worker_died: bool = False


@contextmanager
def contain_fault(
    storage: Storage, video_id: str | None, hostile: tuple[type[Exception], ...] = (),
    fatal: tuple[type[Exception], ...] = (),
) -> Iterator[FaultOutcome]:  # fmt: skip
    """Turn an exception of the block into the reason why one input is quarantined.

    Other inputs are not affected.

    Args:
        video_id: the input; its traceback is written to the log file. None: the block processes several inputs, and the
            caller repeats them one by one to find the one that fails.
        hostile: errors that an invalid input causes.
        fatal: errors after which this process cannot continue.

    Raises:
        Exception: a `fatal` error or an `EnvironmentFailure`, or storage is unavailable, full or not writable. No
            input causes these, and the job retries or stops.
    """
    outcome = FaultOutcome()
    try:
        yield outcome
    except hostile as error:
        outcome.reason = reason_for(error)
        outcome.worker_died = isinstance(error, WorkerDiedError | TimedOutError)
    # Every exception is caught, and only here, because an internal error has no known type. It is not ignored: its
    # traceback is written, the input is quarantined, and the job ends with exit code 1.
    except Exception as error:
        if isinstance(error, (EnvironmentFailure, *fatal)) or _is_of_storage(error):
            raise
        outcome.reason = _message(error) if video_id is None else _log(storage, video_id, error)


def reason_for(error: BaseException) -> str:
    """Return the reason for videos.parquet: `code: message`."""
    return redact(f"{input_errors.as_media_error(error).reason}: {as_reason(error)}")


def is_internal(reason: str | None) -> bool:
    """Return whether a reason in videos.parquet is an internal error."""
    return any(part.startswith(f"{INTERNAL_ERROR}:") for part in (reason or "").split("; "))


def is_changed(reason: str | None) -> bool:
    """Return whether a reason in videos.parquet is an overwritten file."""
    return (reason or "").startswith(f"{ChangedError.reason}:")


def is_unreachable(reason: str | None) -> bool:
    """Return whether a reason in videos.parquet tells nothing of the file: it is gone, or storage could not read it."""
    return (reason or "").partition(":")[0] in _UNREACHABLE


def is_shortage(error: Exception) -> bool:
    """Return whether the machine lacks something, such as space on a disk, so that no input is the cause."""
    return isinstance(error, OSError) and error.errno in _SHORT_OF


def delete_logs(storage: Storage, video_ids: Iterable[str]) -> None:
    """Delete the logs of inputs that are retried."""
    existing = storage.names(LOGS)
    if existing:
        storage.delete_many(sorted({_log_name(video_id) for video_id in video_ids}.intersection(existing)))


def _is_of_storage(error: Exception) -> bool:
    """Return whether storage is unavailable, busy or full, or the output folder could not be read or written.

    Only the traceback distinguishes an output folder that cannot be written from an input that cannot be read.
    """
    if is_transient(error) or is_shortage(error):
        return True
    return isinstance(error, OSError | BotoCoreError) and any(
        isinstance(frame.f_locals.get("self"), Storage) for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _log(storage: Storage, video_id: str, error: Exception) -> str:
    """Write the traceback. Return the reason, which names the log file."""
    name, message = _log_name(video_id), _message(error)
    trace = "".join(traceback.format_exception(error))
    text = f"aupipe {aupipe.__version__}, video_id {video_id}\n{message}\n\n{trace}"
    lines = [redact(line) for line in text.splitlines()]
    storage.write(name, "\n".join([*lines, ""]).encode(errors="backslashreplace"))
    return f"{message} (see {name})"


def _message(error: Exception) -> str:
    message = redact(as_reason(error))
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]}…"
    return f"{INTERNAL_ERROR}: {type(error).__name__}" + (f": {message}" if message else "")


def _log_name(video_id: str) -> str:
    return f"{LOGS}/{INTERNAL_ERROR}-{content_hash(video_id)[:16]}.txt"
