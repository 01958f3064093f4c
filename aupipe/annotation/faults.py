"""Errors that cost one input: those of its file, and those of our own code while it works on it.

OUT/_logs/internal_error-KEY.txt      the traceback of an input that is set aside as `internal_error`
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import cv2
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

import aupipe
from aupipe.annotation.settings import content_hash
from aupipe.errors import MediaError, as_reason, redact
from aupipe.storage import Storage, is_transient

INTERNAL_ERROR = "internal_error"
LOGS = "_logs"
# What damaged or hostile input can raise while it is read.
INPUT_ERRORS = (MediaError, av.error.FFmpegError, cv2.error, MemoryError)
# Of the machine: a disk that is full, also one for temporary files, or too many open files.
_SHORT_OF = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
_LONGEST_MESSAGE = 300  # characters; some libraries put a whole array into theirs


@dataclass
class FaultOutcome:
    """What became of the work inside of `contain_fault`: `reason` is "" if nothing was raised."""

    reason: str = ""


@contextmanager
def contain_fault(
    storage: Storage, video_id: str | None, hostile: tuple[type[Exception], ...] = (),
    fatal: tuple[type[Exception], ...] = (),
) -> Iterator[FaultOutcome]:  # fmt: skip
    """Turn what the block raises into the reason why one input is set aside, so that others keep their tables.

    Args:
        video_id: the input; its traceback goes to the log file. None: the block works on several, and the caller does
            them one by one to find out whose fault it is.
        hostile: errors that are the input's own.
        fatal: errors after which this process can do nothing right.

    Raises:
        Exception: `fatal`, or storage is away, full or not to be written to: no input is to blame, and the job retries
            or stops.
    """
    outcome = FaultOutcome()
    try:
        yield outcome
    except hostile as error:
        outcome.reason = reason_for(error)
    # All of them, here and nowhere else: a fault that nobody foresaw has no type that could be named. It is not passed
    # over: its traceback is kept, the input is set aside, and the job ends with exit code 1.
    except Exception as error:
        if isinstance(error, fatal) or _is_of_storage(error):
            raise
        outcome.reason = _said(error) if video_id is None else _log(storage, video_id, error)


def reason_for(error: BaseException) -> str:
    """`code: what happened`, for videos.parquet."""
    code = error.reason if isinstance(error, MediaError) else "decoder_failed"
    return redact(f"{code}: {as_reason(error)}")


def is_internal(reason: str | None) -> bool:
    """Whether a reason in videos.parquet is a fault of our own code."""
    return any(part.startswith(f"{INTERNAL_ERROR}:") for part in (reason or "").split("; "))


def delete_logs(storage: Storage, video_ids: Collection[str]) -> None:
    """Delete the logs of inputs that are tried again."""
    there = storage.names(LOGS)
    if there:
        for name in {_log_name(video_id) for video_id in video_ids}.intersection(there):
            storage.delete(name)


def _is_of_storage(error: Exception) -> bool:
    """Whether storage is away, busy or full, or the output folder refused to be read or written.

    Only where it was raised tells an output folder that cannot be written from an input that cannot be read.
    """
    if is_transient(error) or (isinstance(error, OSError) and error.errno in _SHORT_OF):
        return True
    return isinstance(error, OSError | BotoCoreError) and any(
        isinstance(frame.f_locals.get("self"), Storage) for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _log(storage: Storage, video_id: str, error: Exception) -> str:
    """Keep the traceback. Returns the reason, which names the file."""
    name, said = _log_name(video_id), _said(error)
    trace = "".join(traceback.format_exception(error))
    text = f"aupipe {aupipe.__version__}, video_id {video_id}\n{said}\n\n{trace}"
    lines = [redact(line) for line in text.splitlines()]
    storage.write(name, "\n".join([*lines, ""]).encode(errors="backslashreplace"))
    return f"{said} (see {name})"


def _said(error: Exception) -> str:
    message = redact(as_reason(error))
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]}…"
    return f"{INTERNAL_ERROR}: {type(error).__name__}" + (f": {message}" if message else "")


def _log_name(video_id: str) -> str:
    return f"{LOGS}/{INTERNAL_ERROR}-{content_hash(video_id)[:16]}.txt"
