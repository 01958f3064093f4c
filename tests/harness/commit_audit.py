"""An audit of the work that annotation runs start and commit, by the files that appear in their output folder.

A segment starts when the mark of an attempt appears. It is committed when its last part appears, and a group of videos
is committed when its entry in the ledger appears. Every file appears by renaming, so Linux's inotify reports each of
them once and complete.
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


class CommitAudit:
    """The audit of one output folder, over all runs that write to it.

    Attributes:
        starts: starts of each segment.
        writes: writes of each part of a segment and of each entry in the ledger.
        after_commit: segments that were started again although they were committed.
    """

    def __init__(self, out: Path) -> None:
        self.starts, self.writes, self._excused = Counter[str](), Counter[str](), Counter[str]()
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
        """End the watch of the folder."""
        os.close(self._inotify)

    def read(self) -> bool:
        """Read the events since the last call. Returns whether a segment was started or a file written."""
        before = self.starts.total() + self.writes.total()
        for folder, name in self._events():
            if folder == "attempts":
                segment = name.rpartition("-")[0]
                if "." in segment:  # the name of a probe contains no dot
                    self.starts[segment] += 1
                    if segment in self._committed:
                        self.after_commit.append(segment)
            else:
                self.writes[name] += 1
                if name.endswith("-last.parquet"):
                    self._committed.add(name.partition("-")[0])
        return self.starts.total() + self.writes.total() > before

    def record_kill(self) -> int:
        """Record that a process was killed and has ended. Returns the number of segments in flight at that time."""
        self.read()
        in_flight = self.starts.keys() - self._committed
        self._excused.update(in_flight)
        return len(in_flight)

    @property
    def restarts(self) -> int:
        """Number of times that segments were started again."""
        return sum(count - 1 for count in self.starts.values())

    @property
    def excess_restarts(self) -> int:
        """Number of restarts of segments beyond the kills at which they were in flight."""
        return sum(max(0, count - 1 - self._excused[segment]) for segment, count in self.starts.items())

    def _events(self) -> Iterator[tuple[str, str]]:
        while True:
            try:
                data = os.read(self._inotify, 2**16)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(data):
                watch, _, _, length = _EVENT.unpack_from(data, offset)
                name = data[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
                yield self._folders[watch], os.fsdecode(name)
                offset += _EVENT.size + length
