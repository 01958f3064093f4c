"""Inputs that kill or hang their worker are tried a bounded number of times.

Ray starts work again for ever when a worker dies of it, and cannot end work that hangs. So each attempt leaves a mark
before it begins and takes it away when it ends, and a watchdog ends the worker's own process when nothing moves. Marks
that are still there are attempts that a worker did not survive.

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
_GRACE_S = 5.0  # after the mark, the process ends even if a library holds the interpreter lock

T = TypeVar("T")


class Watchdog:
    """Ends this process when it is not touched for `stall_s`, and leaves the mark that says so.

    Attributes:
        number: which attempt this is, from 1.
    """

    def __init__(self, storage: Storage, mark: str, number: int, stall_s: float) -> None:
        self.number = number
        self._storage, self._mark, self._stall_s = storage, mark, stall_s
        self._ended, self._paused, self._touched, self._armed = threading.Event(), False, 0.0, 0.0
        threading.Thread(target=self._guard, daemon=True).start()
        self.resume()

    def touch(self) -> None:
        """Something moved."""
        self._touched = time.monotonic()
        if self._touched - self._armed > 1:  # arming starts a thread in C
            self._armed = self._touched
            faulthandler.dump_traceback_later(self._stall_s + _GRACE_S, exit=True, file=2)

    def through(self, items: Iterable[T]) -> Iterator[T]:
        """The items; each one that comes is a touch."""
        for item in items:
            self.touch()
            yield item

    def pause(self) -> None:
        """Others have the turn: they may take any time."""
        self._paused = True
        faulthandler.cancel_dump_traceback_later()

    def resume(self) -> None:
        self._armed = 0.0
        self.touch()
        self._paused = False

    def end(self) -> None:
        self._ended.set()
        self.pause()

    def _guard(self) -> None:
        while not self._ended.wait(min(1.0, self._stall_s / 4)):
            if not self._paused and time.monotonic() - self._touched > self._stall_s:
                self._storage.write(self._mark, _TIMED_OUT)
                os._exit(1)


@contextmanager
def attempt(storage: Storage, unit: str, most: int, stall_s: float) -> Iterator[Watchdog]:
    """Work on a unit for the length of the block.

    Raises:
        WorkerDiedError, TimedOutError: it was tried `most` times, and the last one ended so.
    """
    marks = [f"{_FOLDER}/{unit}-{number}" for number in range(1, most + 1)]
    left = [mark for mark in marks if storage.exists(mark)]
    if len(left) == len(marks):
        if storage.read(left[-1]) == _TIMED_OUT:
            raise TimedOutError(f"nothing moved for {stall_s:g} s, {len(left)} times over")
        raise WorkerDiedError(f"the worker died {len(left)} times over (a crash of a decoder, or out of memory)")
    mine = marks[len(left)]
    storage.write(mine, _STARTED)
    watch = Watchdog(storage, mine, len(left) + 1, stall_s)
    try:
        yield watch
    finally:
        watch.end()
        for mark in (*left, mine):
            storage.delete(mark)


class Unwatched:
    """The interface of `Watchdog` where nothing may end the process: that of a notebook, say."""

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
def unguarded(storage: Storage, unit: str, most: int, stall_s: float) -> Iterator[Unwatched]:
    """Work on a unit without marks and without a watchdog."""
    yield Unwatched()


Attempt = Callable[[Storage, str, int, float], AbstractContextManager[Watchdog | Unwatched]]


def guard(guarded: bool) -> Attempt:
    """Return how a stage works on a unit: `attempt`, or `unguarded`."""
    return attempt if guarded else unguarded


def has_marks(storage: Storage) -> bool:
    """Return whether a worker, or a run in one process, died or was killed while it worked on a unit."""
    return bool(storage.names(_FOLDER))


def reset_attempts(storage: Storage) -> None:
    """Begin anew: attempts are counted within a run, since a run that was stopped says nothing of its inputs."""
    for name in storage.names(_FOLDER):
        storage.delete(name)
