"""The bytes of an input as a seekable file, with one error class per failure.

A remote file is read by range requests. Within `read_once` it is read as a whole, once, if it fits in memory.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aupipe.errors import (
    ChangedError,
    ConfigError,
    MediaError,
    NotAVideoError,
    NotFoundError,
    PermissionDeniedError,
    TooLargeError,
)
from aupipe.storage import filesystem_of, is_http, is_s3, is_transient, is_uri, open_input

_RETRIES_S = (0.5, 4.0)  # delays before a failed request is repeated; refusals (4xx) are not retried
_COPIED_BYTES = 20 * 2**30  # limit for files of servers without ranges, which are copied to the worker's disk
_BLOCK_BYTES = 2**20
# How fsspec reads a remote file ahead: a whole one in few large requests; of a part as little as possible beyond it,
# while the next block is requested in the background.
_WHOLE = {"cache_type": "readahead", "block_size": 8 * 2**20}
_PART = {"cache_type": "background", "block_size": 2**19}
HELD_BYTES = 256 * 2**20  # limit for a file that is kept in memory

T = TypeVar("T")


class _Held(threading.local):
    """The remote files that this thread reads once.

    Attributes:
        files: the bytes of each URI; None: it was not opened yet; b"": it is larger than the limit.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes | None] = {}


_held = _Held()


@contextmanager
def read_once(uri: str) -> Iterator[None]:
    """Keep a remote file of up to 256 MiB in memory within the block, from the first time that it is opened."""
    if not is_uri(uri) or uri in _held.files:
        yield
        return
    _held.files[uri] = None
    try:
        yield
    finally:
        del _held.files[uri]


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """Convert errors of disks and servers into media errors. Errors of S3 and outages pass unchanged.

    Raises:
        MediaError: the block raised another OSError.
    """
    try:
        yield
    except ConfigError as error:  # the protocol of the URI is not supported
        raise MediaError(str(error)) from None
    except FileNotFoundError:
        raise NotFoundError(f"{uri}: no such file") from None
    except PermissionError:
        raise PermissionDeniedError(f"{uri}: no permission to read it") from None
    except OSError as error:
        if type(error).__name__ == "FileExpired":  # of s3fs, which is imported only if it is used
            raise ChangedError(f"{uri}: it was overwritten while it was read") from None
        if is_s3(uri) or (is_uri(uri) and not is_http(uri) and is_transient(error)):
            raise
        raise MediaError(f"{uri}: {error.strerror or error}") from None


@contextmanager
def opened(uri: str, *, whole: bool = False) -> Iterator[Any]:
    """Open an input as a binary file.

    Args:
        whole: the file is read from begin to end.

    Raises:
        MediaError: it does not exist or cannot be read; also raised within the block.
    """
    with named_errors(uri):
        data = _held.files.get(uri, b"")
        if data is None:
            with _file(uri, _WHOLE) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                data = _held.files[uri] = file.read() if size <= HELD_BYTES else b""
        with io.BytesIO(data) if data else _file(uri, _WHOLE if whole else _PART) as file:
            yield file


def _file(uri: str, cache: dict[str, Any]) -> Any:
    return _Http(uri, cache) if is_http(uri) else open_input(uri, **cache)


def check_local(path: str) -> None:
    """Raise an error if a local path is not a readable regular file. FFmpeg reports a missing permission as bad data.

    Raises:
        MediaError: the path is not a readable regular file.
    """
    with named_errors(path):
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block forever
            raise NotAVideoError(f"{path}: a folder or device, not a video")
        with open(path, "rb"):
            pass


class _Http:
    """A file of a web server, read by range. If the server supports no ranges, it is copied to the local disk."""

    def __init__(self, uri: str, cache: dict[str, Any]) -> None:
        self._uri, self._cache = uri, cache
        self._file = self._with_retries(self._open)

    def read(self, size: int = -1) -> bytes:
        place = self._file.tell()

        def read_at_place() -> bytes:
            self._file.seek(place)
            return bytes(self._file.read(size))

        return self._with_retries(read_at_place)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def seekable(self) -> bool:
        return True

    def __enter__(self) -> _Http:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open(self) -> Any:
        from fsspec.implementations.http import HTTPFile

        filesystem, path = filesystem_of(self._uri)
        file = filesystem.open(path, "rb", **self._cache)
        if isinstance(file, HTTPFile):
            try:
                file.seek(-1, os.SEEK_END)
                file.read(1)
                file.seek(0)
            except ValueError:  # raised by fsspec if the response is not the requested range
                file.close()
            else:
                return file
        with filesystem.open(path, "rb", block_size=0) as stream:
            return self._copied(stream)

    def _copied(self, stream: Any) -> Any:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 # it has no name, so a killed worker leaves no file behind
        while block := stream.read(_BLOCK_BYTES):
            copy.write(block)
            if copy.tell() > _COPIED_BYTES:
                copy.close()
                raise TooLargeError(f"{self._uri}: its server supports no ranges, and it is larger than 20 GiB")
        copy.seek(0)
        return copy

    def _with_retries(self, request: Callable[[], T]) -> T:
        import aiohttp  # takes a tenth of a second, and most inputs are files

        for wait_s in (*_RETRIES_S, None):
            try:
                return request()
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
                status = cause.status if isinstance(cause, aiohttp.ClientResponseError) else 0
                if status in (401, 403, 407):
                    raise PermissionError from None
                if status in (404, 410):
                    raise FileNotFoundError from None
                if wait_s is None or 400 <= status < 500:
                    message = f"the server returned {status}" if status else f"{type(cause).__name__}: {cause}"
                    raise OSError(message) from None
                time.sleep(wait_s)
        raise AssertionError
