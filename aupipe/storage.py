"""Files by name below one root, on local disk or at any fsspec URI. Writes are atomic.

Local writes go to a temporary file, which is synced and renamed. Remote writes are one PUT. Requests to storage that
has answered before are retried for about a minute while it is unreachable or busy. Requests to storage that has never
answered are not retried, because its address is probably wrong.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote, unquote_to_bytes

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from aupipe import network
from aupipe.errors import ConfigError, UncreatableFolderError, redact

logger = logging.getLogger(__name__)

# Names that mark an error as transient (storage unreachable or busy) in its type, text or cause. Others are permanent.
TRANSIENT = (
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
    "ClientConnectorError", "ServerDisconnectedError", "ConnectionResetError", "SlowDown", "ServiceUnavailable",
    "InternalError",
    # The messages of these errors in s3fs. An answer to HEAD has no body, so it has no code of S3.
    "Service Unavailable", "reduce your request rate", "encountered an internal error", "Internal Server Error",
    "within the timeout period", "Server not initialized yet",
    # The answers of a gateway before the servers, which know nothing of S3.
    "Bad Gateway", "Gateway Time", "Too Many Requests",
)  # fmt: skip
_WAITS_S = (1, 2, 4, 8, 16, 32)
_TEMPORARY = ".aupipe-tmp-"
_OBJECTS_PER_REQUEST = 1000  # the limit of S3
_DELETING_THREADS = 16
REQUESTS_AT_A_TIME = 32  # of callers that ask for the signatures of many remote files
_ANSWERED: set[str] = set()  # buckets and servers that have answered this process

P = ParamSpec("P")
T = TypeVar("T")


def _retry_transient(method: Callable[Concatenate[Storage, P], T]) -> Callable[Concatenate[Storage, P], T]:
    """Return `method` with retries while the storage is unreachable or busy."""

    @wraps(method)
    def with_retries(self: Storage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answered = self._answered or self._host in _ANSWERED
        result = _retried(lambda: method(self, *args, **kwargs), self.root, answered)
        self._answered = True  # also on other machines, to which this object travels
        _ANSWERED.add(self._host)
        return result

    return with_retries


def _retried(call: Callable[[], T], place: str, answered: bool) -> T:
    """Return the result of a call, with retries while a place that has answered is unreachable or busy."""
    for wait_s in _WAITS_S if answered else ():
        try:
            return call()
        except (OSError, BotoCoreError) as error:
            if not is_transient(error):
                raise
            logger.warning("%s is unreachable, retrying in %d s: %s", place, wait_s, error)
            time.sleep(wait_s)
    return call()


def _server_of(place: str) -> str:
    """Return the bucket or server of a URI, with its protocol; "" for a path."""
    return "/".join(place.split("/")[:3]) if is_uri(place) else ""


def is_transient(error: BaseException) -> bool:
    """Return whether an error may disappear on retry."""
    text = f"{error!r} {error} {error.__cause__!r}"
    return any(name in text for name in TRANSIENT)


def is_uri(path: str) -> bool:
    """Return whether `path` names a protocol, as in s3://bucket/key."""
    return "://" in path


def local_path(place: str) -> str:
    """Return the plain path that a file: URI names, percent-decoded. Any other path or URI is returned unchanged.

    file:///a, file:/a and file://localhost/a are absolute. file://a/b is relative, as in fsspec.
    """
    found = re.match(r"file:(?://localhost(?=/)|//|(?=/))", place, re.IGNORECASE)
    return os.fsdecode(unquote_to_bytes(os.fsencode(place[found.end() :]))) if found else place


def absolute_path(path: str) -> str:
    """Return a local path as an absolute one without "..".

    After a link, ".." is the parent of the folder to which the link leads, as for every other program. Links are
    resolved only there, because a video has the name of its link.
    """
    path = os.path.expanduser(path)
    parts = path.split("/")
    if ".." in parts:
        after = len(parts) - parts[::-1].index("..")
        path = os.path.join(os.path.realpath("/".join(parts[:after])), *parts[after:])
    return os.path.abspath(path)


def absolute_place(place: str) -> str:
    """Return a path or file: URI as an absolute path; any other URI, and "", is returned unchanged."""
    place = local_path(place)
    return place if not place or is_uri(place) else absolute_path(place)


def is_s3(path: str) -> bool:
    return path.startswith(("s3://", "s3a://"))


def is_http(path: str) -> bool:
    """Return whether `path` is an HTTP or HTTPS URL."""
    return path.startswith(("http://", "https://"))


class Storage:
    """The files below one root. Names are relative, with forward slashes. Picklable."""

    def __init__(self, root: str | Path) -> None:
        if not str(root):  # as from "$OUT" if that variable is not set; it must not become the root of the disk
            raise ConfigError("'': an empty name of a folder (a path or URI)")
        self.root = local_path(str(root)).rstrip("/") or "/"
        if not is_uri(self.root):
            self.root = absolute_path(self.root)
        self._filesystem, self._base = filesystem_of(self.root)
        self._host = _server_of(self.root)
        self._answered = False

    @property
    def local(self) -> bool:
        return isinstance(self._filesystem, LocalFileSystem)

    @property
    def _is_s3(self) -> bool:
        return is_s3(self.root)

    def path(self, name: str = "") -> str:
        """Return the full path or URI of `name`."""
        return f"{self.root}/{name}" if name else self.root

    def arrow_path(self, name: str = "") -> str:
        """Return the full path of `name`, or its URI as pyarrow reads it, whose path is percent-encoded."""
        protocol, _, path = self.path(name).partition("://")
        return self.path(name) if self.local else f"{protocol}://{quote(path, safe='/:@')}"

    def arrow_place(self, name: str = "") -> tuple[str, Any]:
        """Return the path of `name` for pyarrow, and its file system; None: that which pyarrow derives from the path.

        On S3 it is the one of this class, because pyarrow's own uses neither the user's proxies nor an endpoint in
        ~/.aws/config, and does not know s3a://. It keeps no listings, which others change.
        """
        if not self._is_s3:
            return self.arrow_path(name), None
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        options = self._filesystem.storage_options | {"use_listings_cache": False}
        return self._inner(name), PyFileSystem(FSSpecHandler(type(self._filesystem)(**options)))

    @_retry_transient
    def exists(self, name: str = "") -> bool:
        return bool(self._filesystem.exists(self._inner(name)))

    @_retry_transient
    def names(self, folder: str = "", suffix: str = "") -> list[str]:
        """Return the names of all complete files below `folder`, sorted; [] if the folder does not exist."""
        top = self._inner(folder)
        if self.local:  # fsspec asks for the status of each file, of which an output folder has a hundred thousand.
            walked = os.walk(top, followlinks=True)
            found = (
                f"{inside[len(self._base) + 1 :]}/{name}".lstrip("/") for inside, _, names in walked for name in names
            )
        else:
            self._filesystem.invalidate_cache(top)
            if not self._filesystem.exists(top):
                return []
            paths = (
                (path for path, _ in objects_below(self._filesystem, top))
                if self._is_s3
                else self._filesystem.find(top)
            )
            found = (str(path)[len(self._base) + 1 :] for path in paths)
        return sorted(n for n in found if n.endswith(suffix) and _TEMPORARY not in n)

    @_retry_transient
    def children(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Return the plain names of the folders and of the files directly in `folder`, each sorted."""
        top = self._inner(folder)
        if self.local:
            with os.scandir(top) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries]
        else:
            found = [(name, info["type"] == "directory") for name, info in self._listed(top)]
        found = [(name, folder) for name, folder in found if name]  # "": an empty object in place of `folder`
        return sorted(name for name, folder in found if folder), sorted(name for name, folder in found if not folder)

    @_retry_transient
    def signatures(self, folder: str = "") -> dict[str, str]:
        """Return name → signature (see `file_signature`) of the files directly in `folder`, sorted. No file is read."""
        top = self._inner(folder)
        if self.local:
            with os.scandir(top) as entries:
                found = [(entry.name, signature_on_disk(entry.path)) for entry in entries if not entry.is_dir()]
        else:
            found = [(name, signature_in(info)) for name, info in self._listed(top) if info["type"] != "directory"]
        return dict(sorted((name, signature) for name, signature in found if name))

    def _listed(self, top: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the plain name and the description of each entry of a remote folder."""
        listed = self._filesystem.ls(top, detail=True)  # s3fs would give names alone
        self._filesystem.invalidate_cache(top)  # a kept listing would hide what other processes write later
        return [(str(info["name"]).rsplit("/", 1)[-1], info) for info in listed]

    @_retry_transient
    def size(self, name: str) -> int:
        return int(self._filesystem.size(self._inner(name)))

    @_retry_transient
    def read(self, name: str) -> bytes:
        one_request = {"max_concurrency": 1} if self._is_s3 else {}  # s3fs would ask for the size first
        return bytes(self._filesystem.cat_file(self._inner(name), **one_request))

    @_retry_transient
    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes start … stop−1 of a file; on remote storage by one request."""
        return bytes(self._filesystem.cat_file(self._inner(name), start=start, end=stop))

    @_retry_transient
    def open(self, name: str) -> Any:
        """Open a file for reading, binary and seekable. Remote files use range requests."""
        return self._filesystem.open(self._inner(name), "rb")

    @_retry_transient
    def write(self, name: str, data: bytes | memoryview) -> None:
        """Write a whole file atomically: neither a reader nor a crash leaves it partly written."""
        target = self._inner(name)
        if not self.local:
            self._filesystem.pipe_file(target, bytes(data))
            return
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except FileExistsError as error:  # a path component is a file
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
        except FileNotFoundError as error:  # as in /proc, or below the mount point of an absent network drive
            raise UncreatableFolderError(
                f"{self.root} cannot be created: {error.strerror}; fix: name another folder"
            ) from None
        temporary = f"{os.path.dirname(target)}/{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            with suppress(OSError):  # a partial file would take the remaining space
                os.unlink(temporary)
            raise OSError(error.errno, error.strerror, target) from error  # the error of a full disk has no file name
        folder = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(folder)  # otherwise a power cut could keep a later rename and lose this one
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: the file system syncs no folders, as some shared ones
                raise
        finally:
            os.close(folder)

    @_retry_transient
    def delete(self, name: str) -> None:
        """Delete a file. A missing file is not an error."""
        # S3 reports no error for a missing object, so this saves a request.
        if self._is_s3 or self._filesystem.exists(self._inner(name)):
            self._filesystem.rm_file(self._inner(name))

    def delete_many(self, names: Sequence[str]) -> None:
        """Delete files. A missing file is not an error.

        One request deletes up to 1,000 objects on S3 (DeleteObjects). Elsewhere threads delete the files.

        Raises:
            OSError: S3 did not delete an object.
        """
        if self._is_s3:
            for first in range(0, len(names), _OBJECTS_PER_REQUEST):
                self._delete_objects(names[first : first + _OBJECTS_PER_REQUEST])
        elif names:
            with ThreadPoolExecutor(_DELETING_THREADS) as pool:
                list(pool.map(self.delete, names))

    def delete_empty_folders(self, folder: str) -> None:
        """Delete the folders below a folder, and itself, as far as they hold no files. Stores of objects have none."""
        for path, _, _ in os.walk(self.path(folder), topdown=False) if self.local else ():
            with suppress(OSError):  # It has files, or is a link or the place of a disk.
                os.rmdir(path)

    @_retry_transient
    def _delete_objects(self, names: Sequence[str]) -> None:
        # `rm` of s3fs ignores the errors in the response, so the request is made here.
        paths = [self._filesystem.split_path(self._inner(name)) for name in names]
        keys = [{"Key": key} for _, key, _ in paths]
        response = self._filesystem.call_s3(
            "delete_objects", Bucket=paths[0][0], Delete={"Objects": keys, "Quiet": True}
        )
        self._filesystem.invalidate_cache()
        if errors := response.get("Errors"):
            first = errors[0]
            reason = f"{first.get('Code')}: {first.get('Message')}"
            raise OSError(f"{self.root}: {len(errors)} objects not deleted, the first is {first.get('Key')}: {reason}")

    def delete_all(self) -> None:
        """Delete everything below the root; for temporary storage."""
        if self._filesystem.exists(self._base):
            self._filesystem.rm(self._base, recursive=True)

    def delete_leftovers(self) -> int:
        """Delete the temporary files of killed processes (local storage only), and return their number."""
        if not self.local or not os.path.isdir(self._base):
            return 0
        leftovers = [path for path in Path(self._base).rglob(f"{_TEMPORARY}*") if path.is_file()]
        for path in leftovers:
            path.unlink()
        return len(leftovers)

    def _inner(self, name: str) -> str:
        if ".." in name.split("/"):
            raise ConfigError(f"file name: {name!r} is outside {self.root} (a name without '..')")
        return f"{self._base}/{name}" if name else str(self._base)


def folder_and_name(path: str) -> tuple[Storage, str]:
    """Return the storage of a file's folder, and the file's name in it."""
    folder, slash, name = path.rpartition("/")
    return Storage(folder or slash or "."), name


def filesystem_of(uri: str) -> tuple[Any, str]:
    """Return the filesystem of a URI, and the path in it. The user's network settings apply.

    Raises:
        ConfigError: the protocol is not supported or not installed, or a network setting is invalid.
    """
    place = local_path(uri)
    if not is_uri(place):  # fsspec would interpret "::" in a name as chaining
        return LocalFileSystem(), absolute_path(place)
    options: dict[str, Any] = {}
    if is_remote := is_http(uri) or is_s3(uri):
        network.apply_proxies(network.host_of(uri))
        if is_http(uri):
            options = {"get_client": network.http_client, "client_kwargs": {"path": network.certificates()}}
        else:
            options = network.s3_options()
    try:
        filesystem, path = url_to_fs(place.partition("::")[0] if is_remote else place, **options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{uri}: {error}") from None
    if is_remote and "::" in place:  # in a key or an IPv6 address, because a chain does not begin with S3 or HTTP
        path = place if is_http(place) else place.partition("://")[2].rstrip("/")
    return filesystem, str(path)


def objects_below(filesystem: Any, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path of each object below a folder on S3, in order, and its size and ETag.

    Pages are dropped after use, because `find` of s3fs keeps about 2 KB of each object.

    Args:
        filesystem, folder: of `filesystem_of`.
    """
    filesystem.connect()
    # Times are not used, and botocore takes longer for them than for all else in a listing.
    filesystem.session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    bucket, key, _ = filesystem.split_path(folder)
    request = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else "", "MaxKeys": _OBJECTS_PER_REQUEST}
    listed = partial(filesystem.call_s3, "list_objects_v2", **request)
    with ThreadPoolExecutor(1) as thread:  # It waits for the next page while this one is used.
        page = listed()
        while page is not None:
            following = None
            if page.get("IsTruncated"):
                following = thread.submit(listed, ContinuationToken=page["NextContinuationToken"])
            for each in page.get("Contents", ()):
                if not each["Key"].endswith("/"):  # an empty object in place of a folder
                    yield f"{bucket}/{each['Key']}", {"size": each["Size"], "ETag": each["ETag"]}
            page = following.result() if following else None


def file_signature(uri: str) -> str:
    """Return the size and modification time of a file, or its ETag; "" if neither is available.

    A file with the same name and signature is taken to have the same content.

    Raises:
        ConfigError: a remote service cannot be reached.
    """
    if not is_uri(uri):
        return signature_on_disk(uri)
    try:
        filesystem, path = filesystem_of(uri)
        return signature_in(filesystem.info(path))
    except (OSError, ConfigError):  # Whoever reads the file reports the reason.
        return ""
    except BotoCoreError as error:
        raise ConfigError(redact(f"{uri}: {error}")) from None


def signature_on_disk(path: str) -> str:
    """Return the signature of a local file; "" if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # no file, or a name that cannot be one
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


def signature_in(info: Mapping[str, Any]) -> str:
    """Return the size and the ETag or modification time in fsspec's description of a file; "" if it has neither."""
    changed = next((info[key] for key in ("ETag", "mtime", "LastModified", "Last-Modified") if info.get(key)), "")
    return f"{info.get('size')}:{changed}" if changed else ""


def open_input(uri: str, **cache: Any) -> Any:
    """Open any path or URI for reading, binary and seekable. Remote files use range requests.

    Args:
        cache: how fsspec reads ahead in a remote file.
    """
    if not is_uri(uri):  # fsspec would interpret "::" in a name as chaining
        return open(uri, "rb")
    filesystem, path = filesystem_of(uri)
    return _retried(lambda: filesystem.open(path, "rb", **cache), redact(uri), _server_of(uri) in _ANSWERED)
