"""The table of errors raised by disks, networks, storage services and Ray, each with the sentence that reports it.

An error that is not in the table is a bug of aupipe and keeps its traceback. Errors are identified by the names of
their classes, so that the table imports none of the libraries, and because errors of Ray Data's workers arrive only as
text.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aupipe.errors import AupipeError, ConfigError, EnvironmentFailure, one_line

_CREDENTIALS = "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws configure`)"
_RIGHTS = "check the address, and the rights of the user or of the credentials"
_NETWORK = "check the address, the network and http_proxy, https_proxy and no_proxy; then run the same command again"
_CERTIFICATE = "name the file of the certificate authority in SSL_CERT_FILE or AWS_CA_BUNDLE"
_SPACE = "free space or name another folder, then run the same command again"
_DISK = "check the disk, the network drive or the storage service, then run the same command again"
_AGAIN = "run the same command again, which resumes"

# Errors of the operating system: number → the fix, and whether a correctly configured job can also raise it.
_BY_NUMBER: dict[int, tuple[str, bool]] = {
    errno.ENOSPC: (_SPACE, True),
    errno.EDQUOT: (_SPACE, True),
    errno.EFBIG: ("raise the limit on the size of files (`ulimit -f unlimited`), or name another folder", True),
    errno.EIO: (_DISK, True),
    errno.ESTALE: ("check the network drive, then run the same command again", True),
    errno.ENODEV: (_DISK, True),
    errno.ENXIO: (_DISK, True),
    errno.EREMOTEIO: ("check the network drive, then run the same command again", True),
    errno.ENOMEM: ("free memory, or use fewer --workers, then run the same command again", True),
    errno.EAGAIN: ("raise the limit on processes (`ulimit -u`), then run the same command again", True),
    errno.EMFILE: ("raise the limit on open files (`ulimit -n 65536`), then run the same command again", True),
    errno.ENFILE: ("raise the machine's limit on open files (fs.file-max), then run the same command again", True),
    errno.EROFS: ("name a folder that can be written", False),
    errno.EACCES: (_RIGHTS, False),
    errno.EPERM: (_RIGHTS, False),
    errno.ENAMETOOLONG: ("name a shorter path", False),
    errno.ENOTDIR: ("name a folder, not a file", False),
    errno.EISDIR: ("name a file, not a folder", False),
    errno.ELOOP: ("a symbolic link leads to itself; name another path", False),
    errno.EADDRINUSE: ("end what uses the port, then run the same command again", False),
    **dict.fromkeys(
        (
            errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH,
            errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENETDOWN,
        ),
        (_NETWORK, False),
    ),
}  # fmt: skip

# Errors of libraries, by the name of their class or of one of its bases. The first match in the MRO applies.
_BY_NAME: dict[str, tuple[str, bool]] = {
    "botocore.exceptions.NoCredentialsError": (_CREDENTIALS, False),
    "botocore.exceptions.PartialCredentialsError": (_CREDENTIALS, False),
    "botocore.exceptions.CredentialRetrievalError": (_CREDENTIALS, False),
    "botocore.exceptions.TokenRetrievalError": (_CREDENTIALS, False),
    "botocore.exceptions.SSOError": ("run `aws sso login`, then the same command again", False),
    "botocore.exceptions.ProfileNotFound": ("check AWS_PROFILE and ~/.aws/config", False),
    "botocore.exceptions.ConfigParseError": ("correct ~/.aws/config", False),
    "botocore.exceptions.ConfigNotFound": ("check AWS_CONFIG_FILE", False),
    "botocore.exceptions.NoRegionError": ("export AWS_DEFAULT_REGION=…", False),
    "botocore.exceptions.InvalidRegionError": ("correct AWS_DEFAULT_REGION", False),
    "botocore.exceptions.SSLError": (_CERTIFICATE, False),
    "botocore.exceptions.ConnectionError": (_NETWORK, False),
    "botocore.exceptions.HTTPClientError": (_NETWORK, False),  # unreachable, too slow, or refused by a proxy
    "botocore.exceptions.ClientError": (_RIGHTS, False),
    "aiohttp.client_exceptions.ClientConnectorCertificateError": (_CERTIFICATE, False),
    "aiohttp.client_exceptions.ClientSSLError": (_CERTIFICATE, False),
    "aiohttp.client_exceptions.ClientResponseError": (_RIGHTS, False),
    "aiohttp.client_exceptions.InvalidURL": ("correct the address", False),
    "aiohttp.client_exceptions.ClientError": (_NETWORK, False),
    "fsspec.exceptions.FSTimeoutError": (_NETWORK, False),
    "ssl.SSLCertVerificationError": (_CERTIFICATE, False),
    "socket.gaierror": (_NETWORK, False),
    "ray.exceptions.AuthenticationError": (
        "use the cluster's token: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token", False,
    ),
    "ray.exceptions.RuntimeEnvSetupError": ("check the job's runtime environment", False),
    "ray.exceptions.OutOfMemoryError": ("use fewer --workers or nodes with more memory; " + _AGAIN, True),
    "ray.exceptions.OutOfDiskError": ("free space on the nodes' disks; " + _AGAIN, True),
    "ray.exceptions.ObjectStoreFullError": ("use fewer --workers or nodes with more memory; " + _AGAIN, True),
    "ray.data.exceptions.ExecutionTimeoutError": ("check the cluster (`ray status`); " + _AGAIN, True),
    "ray.exceptions.LocalRayletDiedError": ("Ray ended on this machine; " + _AGAIN, True),
    "ray.exceptions.NodeDiedError": ("a node of the cluster ended; " + _AGAIN, True),
    "ray.exceptions.RpcError": ("the cluster does not answer; " + _AGAIN, True),
    # These are raised without an errno, mostly by storage services.
    "builtins.PermissionError": (_RIGHTS, False),
    "builtins.ConnectionError": (_NETWORK, False),
}  # fmt: skip

# Errors that only their text distinguishes from a bug of aupipe: class, text, entry.
_BY_TEXT: tuple[tuple[str, str, tuple[str, bool]], ...] = (
    ("builtins.FileNotFoundError", "No usable temporary directory", ("export TMPDIR=…, a folder with space", False)),
    ("builtins.RuntimeError", "unexpected pos ", _BY_NUMBER[errno.ENOSPC]),  # torch.save on a full disk
    ("builtins.RuntimeError", "can't start new thread", _BY_NUMBER[errno.EAGAIN]),
    ("builtins.ValueError", "Invalid endpoint: ", ("export AWS_ENDPOINT_URL=http://HOST:PORT or https://…", False)),
    ("botocore.exceptions.ParamValidationError", "Invalid bucket name", ("correct the bucket's name", False)),
)

# `_LAST_LINE` matches the last line of a traceback: class and message. `_NUMBERED` matches the message of an OSError,
# and `_RUST` that of one in Rust, as of safetensors.
_LAST_LINE = re.compile(r"^(?P<name>[A-Za-z_][\w.]*): (?P<message>.+)$", re.MULTILINE)
_NUMBERED = re.compile(r"\[Errno (?P<number>\d+)\] (?P<message>.*?)(?:: '(?P<place>.*?)'(?: -> .*)?)?$")
_RUST = re.compile(r"\(os error (\d+)\)$")
_CAUSE_SEPARATOR = "\nThe above exception was the direct cause of the following exception:\n"
_USER_CODE = "ray.exceptions.UserCodeException"
# Errors that quote the traceback of an error in the constructor of an actor, and in Ray Tune's driver.
_QUOTING = {"ray.exceptions.ActorDiedError", "ray.tune.error.TuneError"}


@dataclass(frozen=True)
class _Raised:
    """An error, from an exception or from the text of its traceback."""

    names: tuple[str, ...]  # qualified names of its class and of all bases, in MRO order
    message: str
    number: int | None


def explain(error: BaseException, *, running: bool = False) -> AupipeError | None:
    """Return the error with one sentence that reports an error of a library; None for a bug of aupipe.

    Args:
        running: the job had started, so its exit code is 1. Otherwise an error of configuration gives exit code 2.
    """
    for exception in _unwrapped(error):
        for raised in _raised(exception):
            if isinstance(raised, AupipeError):
                return raised
            found = _found(raised)
            if found is not None:
                fix, at_any_time = found
                sentence = f"{one_line(raised.message) or raised.names[0]}; fix: {fix}"
                return EnvironmentFailure(sentence) if running or at_any_time else ConfigError(sentence)
    return None


def is_of_machine(error: BaseException) -> bool:
    """Return whether a disk, a network, a storage service or a limit of the machine is the cause, memory excepted.

    Other work fails in the same way, whatever it computes. Lack of memory depends on what is computed.
    """
    return any(
        not isinstance(raised, AupipeError)
        and raised.number != errno.ENOMEM
        and not raised.names[0].startswith("ray.")
        and _found(raised) is not None
        for exception in _unwrapped(error)
        for raised in _raised(exception)
    )


def machine_fault(error: BaseException) -> AupipeError | None:
    """Return the error with one sentence, as `explain` during a job, if the machine is the cause; otherwise None."""
    return explain(error, running=True) if is_of_machine(error) else None


@contextmanager
def running() -> Iterator[None]:
    """Convert errors of libraries during the job into errors with exit code 1.

    Raises:
        AupipeError: the block raised an error of the table. All other errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        named = explain(error, running=True)
        if named is None or named is error:
            raise
        raise named from error


@contextmanager
def setting_up(what: str) -> Iterator[None]:
    """Convert errors of libraries before the job starts into errors with exit code 2.

    Raises:
        ConfigError: `what` cannot be used, because the block raised an error of the table. All other errors pass
            unchanged.
    """
    try:
        yield
    except Exception as error:
        named = explain(error)
        if named is None or named is error:
            raise
        raise ConfigError(f"{what}: {named}") from error


def _found(raised: _Raised) -> tuple[str, bool] | None:
    for name, text, found in _BY_TEXT:
        if name in raised.names and text in raised.message:
            return found
    named = next((_BY_NAME[name] for name in raised.names if name in _BY_NAME), None)
    return named or (None if raised.number is None else _BY_NUMBER.get(raised.number))


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and its causes, outermost first: those of `raise … from`, and those inside Ray's wrappers."""
    queue, visited = [error], set[int]()
    while queue:
        exception = queue.pop(0)
        if id(exception) in visited:
            continue
        visited.add(id(exception))
        inner = [getattr(exception, name, None) for name in ("cause", "controller_failure", "__cause__")]
        inner += dict(getattr(exception, "worker_failures", None) or {}).values()
        # Ray's task error also derives from its cause's class, but has none of the cause's fields, so it is skipped.
        # The exception is a cause raised by Ray Data: only the text of the task error then names the original error.
        of_task = type(exception).__module__ == "ray.exceptions" and isinstance(inner[0], BaseException)
        if not of_task or _USER_CODE in _names(type(inner[0])):
            yield exception
        queue += [other for other in inner if isinstance(other, BaseException)]


def _raised(exception: BaseException) -> Iterator[_Raised | AupipeError]:
    names = _names(type(exception))
    if isinstance(exception, AupipeError):
        yield exception
    elif _USER_CODE in names:
        yield from _in_text(str(exception))
    elif isinstance(exception, OSError) and exception.strerror:
        place = "" if exception.filename is None else f"{os.fsdecode(exception.filename)}: "
        yield _Raised(names, f"{place}{exception.strerror}", exception.errno)
    else:
        if _QUOTING.intersection(names):
            yield from _in_text(str(exception))
        message = str(exception)
        yield _Raised(names, message, getattr(exception, "errno", None) or _number_of_rust(message))


def _number_of_rust(message: str) -> int | None:
    found = _RUST.search(message)
    return int(found[1]) if found else None


def _in_text(text: str) -> Iterator[_Raised | AupipeError]:
    """Yield the errors in the text of a traceback, outermost first. Ray keeps nothing else of some of them."""
    for block in reversed(text.split(_CAUSE_SEPARATOR)):
        lines = list(_LAST_LINE.finditer(block))
        if not lines:
            continue
        message = lines[-1]["message"]
        module, _, name = lines[-1]["name"].rpartition(".")
        kind = getattr(sys.modules.get(module or "builtins"), name, None)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            continue
        if issubclass(kind, AupipeError):
            yield kind(message)
            continue
        numbered = _NUMBERED.match(message)
        if numbered is None:
            yield _Raised(_names(kind), message, _number_of_rust(message))
        else:
            place = f"{numbered['place']}: " if numbered["place"] else ""
            yield _Raised(_names(kind), place + numbered["message"], int(numbered["number"]))


def _names(kind: type) -> tuple[str, ...]:
    return tuple(f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
