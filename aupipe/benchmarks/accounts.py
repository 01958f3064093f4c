"""What an annotation begins and ends of its work, by the files that appear in its output (Linux's inotify).

A segment is begun when the mark of an attempt appears, and committed when its last part does; a group of videos is
committed when its entry of the ledger appears. Files appear by renaming, so each is seen once and whole.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")
_FOLDERS = ("attempts", "observed", "ledger")


class Accounts:
    """Of one output folder, over all the runs that it takes.

    Attributes:
        begun: how often each segment was begun.
        written: how often each part of a segment, and each entry of the ledger, was written.
        after_commit: segments that were begun once more although they were committed.
    """

    def __init__(self, out: Path) -> None:
        self.begun, self.written, self._exposed = Counter[str](), Counter[str](), Counter[str]()
        self.after_commit: list[str] = []
        self._committed: set[str] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK)
        self._folders = {}
        for name in _FOLDERS:
            folder = out / "_work" / name
            folder.mkdir(parents=True)
            self._folders[libc.inotify_add_watch(self._inotify, os.fsencode(folder), _MOVED_TO)] = name

    def close(self) -> None:
        os.close(self._inotify)

    def read(self) -> bool:
        """Take in what has happened; whether anything has."""
        before = sum(self.begun.values()) + sum(self.written.values())
        for folder, name in self._events():
            if folder == "attempts":
                segment = name.rpartition("-")[0]
                if "." in segment:  # else it is a probe
                    self.begun[segment] += 1
                    if segment in self._committed:
                        self.after_commit.append(segment)
            else:
                self.written[name] += 1
                if name.endswith("-last.parquet"):
                    self._committed.add(name.partition("-")[0])
        return sum(self.begun.values()) + sum(self.written.values()) > before

    def kill(self) -> int:
        """A process was killed, and what died of it is dead: how many segments were begun and not committed."""
        self.read()
        in_flight = self.begun.keys() - self._committed
        self._exposed.update(in_flight)
        return len(in_flight)

    @property
    def redone(self) -> int:
        """Segments begun again."""
        return sum(count - 1 for count in self.begun.values())

    @property
    def beyond(self) -> int:
        """Segments begun again more often than a kill found them in flight."""
        return sum(max(0, count - 1 - self._exposed[segment]) for segment, count in self.begun.items())

    def _events(self) -> Iterator[tuple[str, str]]:
        while True:
            try:
                data = os.read(self._inotify, 2**16)
            except BlockingIOError:
                return
            place = 0
            while place < len(data):
                watch, _, _, length = _EVENT.unpack_from(data, place)
                name = data[place + _EVENT.size : place + _EVENT.size + length].rstrip(b"\0")
                yield self._folders[watch], os.fsdecode(name)
                place += _EVENT.size + length
