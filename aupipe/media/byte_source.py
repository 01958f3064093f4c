"""The bytes of an input as a seekable file, by range requests if it is remote, with one error class per failure."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
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

T = TypeVar("T")


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
def opened(uri: str) -> Iterator[Any]:
    """Open an input as a binary file.

    Raises:
        MediaError: it does not exist or cannot be read; also raised within the block.
    """
    with named_errors(uri), _Http(uri) if is_http(uri) else open_input(uri) as file:
        yield file


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

    def __init__(self, uri: str) -> None:
        self._uri = uri
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
        file = filesystem.open(path, "rb")
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
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
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
