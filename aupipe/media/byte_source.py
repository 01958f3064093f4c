"""The bytes of an input: a seekable file, by range where it is remote, and a name for each way in which that fails."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFile

from aupipe.errors import ConfigError, MediaError, NotAVideoError, NotFoundError, PermissionDeniedError, TooLargeError
from aupipe.storage import filesystem_of, is_http, is_uri, open_input

_RETRIES_S = (0.5, 4.0)  # after which a server that fails is asked again; one that refuses is not
_COPIED_BYTES = 20 * 2**30  # of a file whose server gives no ranges, at most: what a worker's disk should have
_BLOCK_BYTES = 2**20
_FAILURES = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """What disks and web servers refuse, by its name; what other storage says while it is away is left as it is.

    Raises:
        MediaError: for an OSError in the block.
    """
    try:
        yield
    except ConfigError as error:  # of a name that no filesystem here knows
        raise MediaError(str(error)) from None
    except FileNotFoundError:
        raise NotFoundError(f"{uri}: no such file") from None
    except PermissionError:
        raise PermissionDeniedError(f"{uri}: no permission to read it") from None
    except OSError as error:
        if is_uri(uri) and not is_http(uri):
            raise
        raise MediaError(f"{uri}: {error.strerror or error}") from None


@contextmanager
def opened(uri: str) -> Iterator[Any]:
    """A binary file.

    Raises:
        MediaError: in the block too: it is not there, or cannot be read.
    """
    with named_errors(uri), _Http(uri) if is_http(uri) else open_input(uri) as file:
        yield file


def check_local(path: str) -> None:
    """Raises:
    MediaError: it is no regular file that can be read. FFmpeg would call a missing permission bad data.
    """
    with named_errors(path):
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise NotAVideoError(f"{path}: a folder or device, not a video")
        with open(path, "rb"):
            pass


class _Http:
    """A file that a web server gives, by range; where it gives no ranges, a copy of it on this machine's disk."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._file = self._asked(self._open)

    def read(self, size: int = -1) -> bytes:
        place = self._file.tell()

        def again() -> bytes:
            self._file.seek(place)
            return bytes(self._file.read(size))

        return self._asked(again)

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
        filesystem, path = filesystem_of(self._uri)
        file = filesystem.open(path, "rb")
        if isinstance(file, HTTPFile):
            try:
                file.seek(-1, os.SEEK_END)
                file.read(1)
                file.seek(0)
            except ValueError:  # what fsspec raises where an answer is not the range
                file.close()
            else:
                return file
        with filesystem.open(path, "rb", block_size=0) as stream:
            return self._copied(stream)

    def _copied(self, stream: Any) -> Any:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 # it has no name, so that a killed worker leaves nothing
        while block := stream.read(_BLOCK_BYTES):
            copy.write(block)
            if copy.tell() > _COPIED_BYTES:
                copy.close()
                raise TooLargeError(f"{self._uri}: its server gives no ranges, and it has more than 20 GiB")
        copy.seek(0)
        return copy

    def _asked(self, question: Any) -> Any:
        for wait_s in (*_RETRIES_S, None):
            try:
                return question()
            except _FAILURES as error:
                cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
                status = cause.status if isinstance(cause, aiohttp.ClientResponseError) else 0
                if status in (401, 403, 407):
                    raise PermissionError from None
                if status in (404, 410):
                    raise FileNotFoundError from None
                if wait_s is None or 400 <= status < 500:
                    said = f"the server says {status}" if status else f"{type(cause).__name__}: {cause}"
                    raise OSError(said) from None
                time.sleep(wait_s)
        raise AssertionError
