"""Copies of remote tables on this node's disk, which its processes share: each table is fetched once per node.

The unit is what training reads at once, a row group's images or a shard's labels. Whole shards would be read thirty
times over, because a window of the training plan takes single row groups from many shards.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from aupipe.errors import ConfigError

_LOCKS = 256  # lock files; two tables with the same lock are fetched one after the other


class NodeCopies:
    """A folder of tables with a bounded size. The tables that were not used for the longest time are deleted."""

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        """
        Args:
            limit_bytes: of all copies; None: half of the disk space that is free or contains copies.

        Raises:
            ConfigError: the folder belongs to another user.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ConfigError(f"{folder}: belongs to another user; fix: set TMPDIR to a folder of your own")
        self._folder, self._limit_bytes = folder, limit_bytes

    def table(self, key: str, fetch: Callable[[], pa.Table]) -> pa.Table:
        """Return the table of `key`, memory-mapped. If there is no copy, one process of the node fetches it.

        Args:
            key: identifies the content, which never changes.
        """
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"
        if (found := _read(path)) is not None:
            return found
        with self._locked(path.name[:2]):
            if (found := _read(path)) is not None:  # fetched by the process that held the lock
                return found
            table = fetch()
            self._keep(path, table)
            return table

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self._folder / f"{name}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, also if the process is killed
            yield

    def _keep(self, path: Path, table: pa.Table) -> None:
        """Write a copy, unless it alone exceeds the limit."""
        temporary = self._folder / f"{uuid.uuid4().hex}.tmp"
        try:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            self._make_room(temporary)
            temporary.replace(path)
        except OSError:  # The disk is full because of other files. The copy only saves time.
            temporary.unlink(missing_ok=True)

    def _make_room(self, new: Path) -> None:
        """Delete the copies used longest ago until all fit in the limit, with temporary files of killed processes."""
        with os.scandir(self._folder) as entries:
            stats = {entry.path: entry.stat() for entry in entries if not entry.name.endswith(".lock")}
        used = sum(stat.st_size for stat in stats.values())
        limit = self._limit_bytes
        if limit is None:
            limit = (shutil.disk_usage(self._folder).free + used) // 2
        for path, stat in sorted(stats.items(), key=lambda item: item[1].st_mtime):
            if used <= limit:
                break
            Path(path).unlink(missing_ok=True)
            used -= stat.st_size


def _read(path: Path) -> pa.Table | None:
    """Return the table in a file, which counts as used now; None if there is none, or if a crash left it incomplete."""
    try:
        os.utime(path)
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except FileNotFoundError:
        return None
    except pa.ArrowInvalid:
        path.unlink(missing_ok=True)
        return None


@functools.cache
def node_copies() -> NodeCopies:
    """Return the copies of this node, in its folder for temporary files."""
    return NodeCopies(Path(tempfile.gettempdir()) / f"aupipe-{os.getuid()}" / "copies")
