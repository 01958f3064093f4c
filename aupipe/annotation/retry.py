"""Bounded retries of inputs that crash or stall their worker.

Ray restarts work without limit when its worker dies, and cannot end work that stalls. Each attempt therefore writes a
mark before it begins and deletes it when it ends, and a watchdog ends the worker's own process when it stalls.
Remaining marks count the attempts during which a worker died.

    OUT/_work/attempts/UNIT-1 …      "started", or "timed out"
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from aupipe.errors import TimedOutError, WorkerDiedError
from aupipe.storage import Storage

_FOLDER = "_work/attempts"
_STARTED, _TIMED_OUT = b"started", b"timed out"
_GRACE_S = 5.0  # after the stall, the process ends even if a library holds the interpreter lock

T = TypeVar("T")


class Watchdog:
    """A timer that ends this process if it is not reset for `stall_s`, and marks the attempt as timed out.

    Attributes:
        number: of this attempt, from 1.
    """

    def __init__(self, storage: Storage, mark: str, number: int, stall_s: float) -> None:
        self.number = number
        self._storage, self._mark, self._stall_s = storage, mark, stall_s
        self._ended, self._paused, self._touched, self._armed = threading.Event(), False, 0.0, 0.0
        threading.Thread(target=self._guard, daemon=True).start()
        self.resume()

    def touch(self) -> None:
        """Reset the stall timer."""
        self._touched = time.monotonic()
        if self._touched - self._armed > 1:  # Arming starts a C thread, so it is done at most once a second.
            self._armed = self._touched
            faulthandler.dump_traceback_later(self._stall_s + _GRACE_S, exit=True, file=2)

    def through(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and reset the stall timer at each."""
        for item in items:
            self.touch()
            yield item

    def pause(self) -> None:
        """Pause the timer while a downstream stage runs."""
        self._paused = True
        faulthandler.cancel_dump_traceback_later()

    def resume(self) -> None:
        """Restart the timer."""
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
def attempt(storage: Storage, unit: str, max_attempts: int, stall_s: float) -> Iterator[Watchdog]:
    """Guard the work on a unit in the block with a mark and a watchdog.

    Raises:
        WorkerDiedError, TimedOutError: all `max_attempts` attempts failed; the last one decides which.
    """
    marks = [f"{_FOLDER}/{unit}-{number}" for number in range(1, max_attempts + 1)]
    failed = [mark for mark in marks if storage.exists(mark)]
    if len(failed) == len(marks):
        if storage.read(failed[-1]) == _TIMED_OUT:
            raise TimedOutError(f"no progress for {stall_s:g} s in {len(failed)} attempts")
        raise WorkerDiedError(f"the worker died in {len(failed)} attempts (a crash of a decoder, or out of memory)")
    mark = marks[len(failed)]
    storage.write(mark, _STARTED)
    watch = Watchdog(storage, mark, len(failed) + 1, stall_s)
    try:
        yield watch
    finally:
        watch.end()
        for each in (*failed, mark):
            storage.delete(each)


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

    def resume(self) -> None:
        """Do nothing."""


@contextmanager
def unguarded(storage: Storage, unit: str, max_attempts: int, stall_s: float) -> Iterator[Unwatched]:
    """Work on a unit in the block without marks and without a watchdog."""
    yield Unwatched()


Attempt = Callable[[Storage, str, int, float], AbstractContextManager[Watchdog | Unwatched]]


def guard(guarded: bool) -> Attempt:
    """Return `attempt`, or `unguarded`, for a stage to work on a unit."""
    return attempt if guarded else unguarded


def has_marks(storage: Storage) -> bool:
    """Return whether a worker, or a run in one process, died or was killed during an attempt."""
    return bool(storage.names(_FOLDER))


def reset_attempts(storage: Storage) -> None:
    """Delete all marks. Attempts count within one run, because a stopped run is no evidence against its inputs."""
    storage.delete_many(storage.names(_FOLDER))
