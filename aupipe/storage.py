"""Files by name below one root, on local disk or any fsspec URI. A file is there whole or not at all.

Local writes go to a temporary name, are synced and renamed; remote writes are one PUT. Storage that has answered once
and is then away, or busy, is asked again for about a minute; one that never answered is a wrong address.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from aupipe import network
from aupipe.errors import ConfigError

logger = logging.getLogger(__name__)

# What an error of storage that is away or busy names, in its type, its text or its cause. All else is final.
TRANSIENT = (
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
    "ClientConnectorError", "ServerDisconnectedError", "ConnectionResetError", "SlowDown", "ServiceUnavailable",
    "InternalError",
)  # fmt: skip
_WAITS_S = (1, 2, 4, 8, 16, 32)
_TEMPORARY = ".aupipe-tmp-"

P = ParamSpec("P")
T = TypeVar("T")


def _retry_transient(method: Callable[Concatenate[Storage, P], T]) -> Callable[Concatenate[Storage, P], T]:
    """Take up again what storage that is away for a while did not do."""

    @wraps(method)
    def again(self: Storage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for wait_s in _WAITS_S if self._answered else ():
            try:
                return method(self, *args, **kwargs)
            except (OSError, BotoCoreError) as error:
                if not is_transient(error):
                    raise
                logger.warning("%s is away, asked again in %d s: %s", self.root, wait_s, error)
                time.sleep(wait_s)
        result = method(self, *args, **kwargs)
        self._answered = True
        return result

    return again


def is_transient(error: BaseException) -> bool:
    """Whether to ask again is worth it."""
    said = f"{error!r} {error} {error.__cause__!r}"
    return any(name in said for name in TRANSIENT)


def is_uri(path: str) -> bool:
    """Whether `path` names a protocol, as in s3://bucket/key."""
    return "://" in path


def local_path(place: str) -> str:
    """Return the plain path that a file: URI names, percent signs decoded; any other path or URI as it is.

    file:///a, file:/a and file://localhost/a are absolute; file://a/b is relative, as it is to fsspec.
    """
    found = re.match(r"file:(?://localhost(?=/)|//|(?=/))", place, re.IGNORECASE)
    return os.fsdecode(unquote_to_bytes(os.fsencode(place[found.end() :]))) if found else place


def is_http(path: str) -> bool:
    """Whether a web server is to give `path`."""
    return path.startswith(("http://", "https://"))


class Storage:
    """The files below one root. Names are relative, with forward slashes. Picklable."""

    def __init__(self, root: str | Path) -> None:
        self.root = local_path(str(root)).rstrip("/") or "/"
        if not is_uri(self.root):
            self.root = os.path.abspath(os.path.expanduser(self.root))
        self._filesystem, self._base = filesystem_of(self.root)
        self._answered = False

    @property
    def local(self) -> bool:
        return isinstance(self._filesystem, LocalFileSystem)

    def path(self, name: str = "") -> str:
        """The full path or URI of `name`."""
        return f"{self.root}/{name}" if name else self.root

    @_retry_transient
    def exists(self, name: str = "") -> bool:
        return bool(self._filesystem.exists(self._inner(name)))

    @_retry_transient
    def names(self, folder: str = "", suffix: str = "") -> list[str]:
        """Names of all complete files below `folder`, sorted; [] if it is not there."""
        top = self._inner(folder)
        self._filesystem.invalidate_cache(top)
        if not self._filesystem.exists(top):
            return []
        found = (str(path)[len(self._base) + 1 :] for path in self._filesystem.find(top))
        return sorted(n for n in found if n.endswith(suffix) and _TEMPORARY not in n)

    @_retry_transient
    def children(self, folder: str = "") -> tuple[list[str], list[str]]:
        """The plain names of the folders and of the files that lie directly in `folder`, sorted; a cheap look."""
        top = self._inner(folder)
        if self.local:
            with os.scandir(top) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries]
        else:
            found = [(str(e["name"]).rsplit("/", 1)[-1], e["type"] == "directory") for e in self._filesystem.ls(top)]
        return sorted(name for name, folder in found if folder), sorted(name for name, folder in found if not folder)

    @_retry_transient
    def size(self, name: str) -> int:
        return int(self._filesystem.size(self._inner(name)))

    @_retry_transient
    def read(self, name: str) -> bytes:
        return bytes(self._filesystem.cat_file(self._inner(name)))

    @_retry_transient
    def open(self, name: str) -> Any:
        """A seekable binary file for reading (range reads where the file is remote)."""
        return self._filesystem.open(self._inner(name), "rb")

    @_retry_transient
    def write(self, name: str, data: bytes | memoryview) -> None:
        """Write the whole file so that a reader, or a crash, never sees half of it."""
        target = self._inner(name)
        if not self.local:
            self._filesystem.pipe_file(target, bytes(data))
            return
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except FileExistsError as error:  # a file of that name, though none was to be made
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
        temporary = f"{os.path.dirname(target)}/{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            with suppress(OSError):  # half a file would keep what space there is
                os.unlink(temporary)
            raise OSError(error.errno, error.strerror, target) from error  # a full disk names no file
        folder = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut could keep a later rename and lose this one
        finally:
            os.close(folder)

    @_retry_transient
    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""
        if self._filesystem.exists(self._inner(name)):
            self._filesystem.rm_file(self._inner(name))

    def delete_all(self) -> None:
        """Delete everything below the root; for temporary storage."""
        if self._filesystem.exists(self._base):
            self._filesystem.rm(self._base, recursive=True)

    def delete_leftovers(self) -> int:
        """Delete temporary files that a killed process left (local only). Returns how many."""
        if not self.local or not os.path.isdir(self._base):
            return 0
        left = [path for path in Path(self._base).rglob(f"{_TEMPORARY}*") if path.is_file()]
        for path in left:
            path.unlink()
        return len(left)

    def _inner(self, name: str) -> str:
        if ".." in name.split("/"):
            raise ConfigError(f"{name!r} would leave {self.root}")
        return f"{self._base}/{name}" if name else str(self._base)


def of_file(path: str) -> tuple[Storage, str]:
    """The folder that a file lies in, and the file's name there."""
    folder, slash, name = path.rpartition("/")
    return Storage(folder or slash or "."), name


def filesystem_of(uri: str) -> tuple[Any, str]:
    """Return the filesystem that a URI names, and the path there. The user's network settings apply.

    Raises:
        ConfigError: there is no such kind of filesystem here, or a network setting cannot be used.
    """
    options: dict[str, Any] = {}
    if is_http(uri) or uri.startswith(("s3://", "s3a://")):
        network.apply_proxies(network.host_of(uri))
        if is_http(uri):
            options = {"get_client": network.http_client, "client_kwargs": {"path": network.certificates()}}
        else:
            options = network.s3_options()
    try:
        filesystem, path = url_to_fs(local_path(uri), **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{uri}: {error}") from None
    return filesystem, str(path)


def open_input(uri: str) -> Any:
    """A seekable binary file for reading any path or URI, by range where it is remote."""
    if not is_uri(uri):  # to fsspec, "::" in a name means chaining
        return open(uri, "rb")
    filesystem, path = filesystem_of(uri)
    return filesystem.open(path, "rb")
