"""Bounded retries of inputs that crash or stall their worker.

Ray restarts work without limit when its worker dies, and cannot end work that stalls. Each attempt therefore writes a
mark before it begins and deletes it when it ends, and a watchdog ends the worker's own process when it stalls.
Remaining marks count the attempts during which a worker died, and their text tells why.

    OUT/_work/attempts/UNIT-1 …      "started", with the traceback of a crash; or "timed out"

A crash in native code and a stall are the fault of the input, and few are allowed. A worker that was killed (out of
memory, a lost or drained node) leaves no traceback. This is no evidence against the input, so many are allowed. Object
storage cannot be written in a crash, so crashes count as kills there.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO, TypeVar

from aupipe.annotation.settings import LimitsConfig
from aupipe.errors import TimedOutError, WorkerDiedError
from aupipe.storage import Storage

_FOLDER = "_work/attempts"
_STARTED, _TIMED_OUT = b"started", b"timed out"
_CRASHED, _STALLED = b"Fatal Python error", b"Timeout ("  # as `faulthandler` begins its tracebacks
_GRACE_S = 5.0  # after the stall, the process ends even if a library holds the interpreter lock

T = TypeVar("T")


class Watchdog:
    """A timer that ends this process if it is not reset for `stall_s`, and marks the attempt as timed out.

    Attributes:
        number: of this attempt, from 1.
    """

    def __init__(self, storage: Storage, mark: str, number: int, stall_s: float, trace: TextIO | int = 2) -> None:
        self.number, self._trace = number, trace
        self._storage, self._mark, self._stall_s = storage, mark, stall_s
        self._ended, self._paused, self._touched, self._armed = threading.Event(), False, 0.0, 0.0
        threading.Thread(target=self._guard, daemon=True).start()
        self.resume()

    def touch(self) -> None:
        """Reset the stall timer."""
        self._touched = time.monotonic()
        if self._touched - self._armed > 1:  # Arming starts a C thread, so it is done at most once a second.
            self._armed = self._touched
            faulthandler.dump_traceback_later(self._stall_s + _GRACE_S, exit=True, file=self._trace)

    def through(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and reset the stall timer at each."""
        for item in items:
            self.touch()
            yield item

    def pause(self) -> None:
        """Pause the timer while a downstream stage runs."""
        self._paused = True
        faulthandler.cancel_dump_traceback_later()

    def resume(self, stall_s: float | None = None) -> None:
        """Restart the timer. `stall_s`: a new limit; None: the one before."""
        self._stall_s = self._stall_s if stall_s is None else stall_s
        self._armed = 0.0
        self.touch()
        self._paused = False

    def end(self) -> None:
        """Stop the timer for good."""
        self._ended.set()
        self.pause()

    def _guard(self) -> None:
        while not self._ended.wait(min(1.0, self._stall_s / 4)):
            if not self._paused and time.monotonic() - self._touched > self._stall_s:
                self._storage.write(self._mark, _TIMED_OUT)
                os._exit(1)


@contextmanager
def attempt(storage: Storage, unit: str, limits: LimitsConfig, stall_s: float) -> Iterator[Watchdog]:
    """Guard the work on a unit in the block with a mark and a watchdog.

    Raises:
        WorkerDiedError, TimedOutError: `limits.attempts` attempts failed because of the unit, of which the last one
            decides which, or workers were killed in `limits.kills` attempts.
    """
    failed: list[bytes] = []
    while storage.exists(mark := f"{_FOLDER}/{unit}-{len(failed) + 1}"):
        failed.append(storage.read(mark))
    guilty = [text for text in failed if text == _TIMED_OUT or _CRASHED in text or _STALLED in text]
    if len(guilty) >= limits.attempts:
        if _CRASHED in guilty[-1]:
            raise WorkerDiedError(f"the worker died in {len(guilty)} attempts ({_signal_of(guilty[-1])})")
        raise TimedOutError(f"no progress for {stall_s:g} s in {len(guilty)} attempts")
    if len(failed) >= limits.kills:
        raise WorkerDiedError(f"the worker was killed in {len(failed)} attempts (out of memory, or nodes were lost)")
    storage.write(mark, _STARTED)
    with _crash_trace(storage, mark) as trace:
        watch = Watchdog(storage, mark, len(failed) + 1, stall_s, trace)
        try:
            yield watch
        finally:
            watch.end()
            for number in range(1, len(failed) + 2):
                storage.delete(f"{_FOLDER}/{unit}-{number}")


@contextmanager
def _crash_trace(storage: Storage, mark: str) -> Iterator[TextIO | int]:
    """Append the traceback of a crash of this process in the block to the mark, if it is a local file."""
    if not storage.local:
        yield 2
        return
    was_enabled = faulthandler.is_enabled()
    with open(storage.path(mark), "a") as trace:
        faulthandler.enable(trace, all_threads=False)
        try:
            yield trace
        finally:
            if was_enabled:
                faulthandler.enable(2, all_threads=False)
            else:
                faulthandler.disable()


def _signal_of(text: bytes) -> str:
    """Return the signal that a crash reports, such as Segmentation fault."""
    return text.partition(_CRASHED + b":")[2].partition(b"\n")[0].decode().strip()


class Unwatched:
    """The interface of `Watchdog` for a process that must not be ended, such as a notebook."""

    number = 1

    def touch(self) -> None:
        """Do nothing."""

    def through(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items."""
        yield from items

    def pause(self) -> None:
        """Do nothing."""

    def resume(self, stall_s: float | None = None) -> None:
        """Do nothing."""


@contextmanager
def unguarded(storage: Storage, unit: str, limits: LimitsConfig, stall_s: float) -> Iterator[Unwatched]:
    """Work on a unit in the block without marks and without a watchdog."""
    yield Unwatched()


Attempt = Callable[[Storage, str, LimitsConfig, float], AbstractContextManager[Watchdog | Unwatched]]


def guard(guarded: bool) -> Attempt:
    """Return `attempt`, or `unguarded`, for a stage to work on a unit."""
    return attempt if guarded else unguarded


def has_marks(storage: Storage) -> bool:
    """Return whether a worker, or a run in one process, died or was killed during an attempt."""
    return bool(storage.names(_FOLDER))


def reset_attempts(storage: Storage) -> None:
    """Delete all marks. Attempts count within one run, because a stopped run is no evidence against its inputs."""
    storage.delete_many(storage.names(_FOLDER))
