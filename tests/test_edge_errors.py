"""Errors of libraries become one sentence with an exit code; bugs of aupipe keep their traceback."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import ray
import ray.train
import safetensors.torch
import torch
from botocore import exceptions as boto
from fsspec.exceptions import FSTimeoutError

from aupipe.edge_errors import explain, is_of_machine, running, setting_up
from aupipe.errors import CheckpointError, ConfigError, EnvironmentFailure, NotFoundError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def os_error(number: int, place: str | None = "/x/y") -> OSError:
    return OSError(number, os.strerror(number), place)


def client_error(code: str) -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "begins", "contains", "code"),
    [
        (os_error(errno.ENOSPC), "/x/y: No space left on device; fix: free space", "", 1),
        (os_error(errno.ENOSPC, None), "No space left on device; fix: free space", "", 1),
        (os_error(errno.EDQUOT), "/x/y: Disk quota exceeded; fix: ", "", 1),
        (os_error(errno.EIO), "/x/y: Input/output error; fix: check the disk", "", 1),
        (os_error(errno.ESTALE), "/x/y: Stale file handle; fix: ", "", 1),
        (os_error(errno.EFBIG), "/x/y: File too large; fix: ", "ulimit -f", 1),
        (os_error(errno.EMFILE), "/x/y: Too many open files; fix: ", "ulimit -n", 1),
        (os_error(errno.EROFS), "/x/y: Read-only file system; fix: ", "", 2),
        (os_error(errno.EACCES), "/x/y: Permission denied; fix: ", "", 2),
        (os_error(errno.ENAMETOOLONG), "/x/y: File name too long; fix: ", "", 2),
        (os_error(errno.ENOTDIR), "/x/y: Not a directory; fix: ", "", 2),
        (os_error(errno.ECONNREFUSED, None), "Connection refused; fix: ", "no_proxy", 2),
        (PermissionError("Access Denied"), "Access Denied; fix: ", "credentials", 2),
        (boto.NoCredentialsError(), "Unable to locate credentials; fix: ", "aws configure", 2),
        (boto.ProfileNotFound(profile="p"), "The config profile (p) could not be found; fix: ", "AWS_PROFILE", 2),
        (boto.EndpointConnectionError(endpoint_url="http://h/?key=s3cret"), "Could not connect", "http_proxy", 2),
        (boto.ProxyConnectionError(proxy_url="http://h"), "Failed to connect to proxy", "http_proxy", 2),
        (ValueError("Invalid endpoint: h:9000"), "Invalid endpoint: h:9000; fix: ", "http://HOST:PORT", 2),
        (boto.SSLError(endpoint_url="https://h", error="bad"), "SSL validation failed", "AWS_CA_BUNDLE", 2),
        (client_error("AccessDenied"), "An error occurred (AccessDenied)", "rights", 2),
        (client_error("NoSuchBucket"), "An error occurred (NoSuchBucket)", "address", 2),
        (aiohttp.ServerDisconnectedError(), "Server disconnected; fix: ", "no_proxy", 2),
        (aiohttp.InvalidURL("http://["), "http://[; fix: correct the address", "", 2),
        (FSTimeoutError(), "fsspec.exceptions.FSTimeoutError; fix: ", "network", 2),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known; fix: ", "network", 2),
        (ssl.SSLCertVerificationError(1, "self-signed"), "self-signed; fix: ", "SSL_CERT_FILE", 2),
        (ray.exceptions.OutOfDiskError(), "", "nodes' disks", 1),
        (ray.exceptions.OutOfMemoryError("killed"), "killed; fix: ", "--workers", 1),
    ],
)  # fmt: skip
def test_an_error_of_a_library_becomes_a_sentence_with_an_exit_code(
    error: Exception, begins: str, contains: str, code: int
) -> None:
    named = explain(error)
    assert named is not None
    assert str(named).startswith(begins)
    assert contains in str(named)
    assert "\n" not in str(named)
    assert "s3cret" not in str(named)
    assert "; fix: " in str(named)
    assert named.exit_code == code
    assert type(named) is (ConfigError if code == 2 else EnvironmentFailure)
    while_running = explain(error, running=True)
    assert while_running is not None
    assert while_running.exit_code == 1


def bugs() -> list[Exception]:
    found: list[Exception] = [
        TypeError("bad operand"), ValueError("no"), KeyError("x"), IndexError(), AssertionError(), ZeroDivisionError(),
        AttributeError(), RuntimeError("shape"), MemoryError(), TimeoutError(), NotImplementedError(),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), OSError("odd"), OSError(errno.EINVAL, "x"),
        boto.ParamValidationError(report="Missing required parameter"),
        boto.UnknownKeyError(value=1, param=2, choices=3),
        ray.exceptions.WorkerCrashedError(), ray.exceptions.RayTaskError("f", "Traceback", TypeError("ours")),
    ]  # fmt: skip
    try:
        try:
            raise os_error(errno.ENOSPC)
        except OSError:
            {}["a bug while an error is handled"]
    except KeyError as error:
        found.append(error)
    return found


@pytest.mark.parametrize("error", bugs(), ids=lambda error: type(error).__name__)
def test_a_bug_of_aupipe_stays_as_it_is(error: Exception) -> None:
    assert explain(error) is None
    assert explain(error, running=True) is None
    for block in (running(), setting_up("x")):
        with pytest.raises(type(error)) as caught, block:
            raise error
        assert caught.value is error


def test_the_cause_of_an_error_counts() -> None:
    error = RuntimeError("listing failed")
    error.__cause__ = boto.NoCredentialsError()
    assert str(explain(error)).startswith("Unable to locate credentials; fix: ")


def test_errors_of_aupipe_pass_and_the_block_decides_the_exit_code() -> None:
    ours = NotFoundError("gone")
    with pytest.raises(NotFoundError) as caught, running():
        raise ours
    assert caught.value is ours
    with pytest.raises(EnvironmentFailure, match="Permission denied"), running():
        raise os_error(errno.EACCES)
    with pytest.raises(ConfigError, match=r"^the store: /x/y: No space left") as config, setting_up("the store"):
        raise os_error(errno.ENOSPC)
    assert config.value.exit_code == 2


def test_the_cause_in_a_wrapper_of_ray_is_found() -> None:
    cause = os_error(errno.ENOSPC, "/out/a.parquet")
    task = ray.exceptions.RayTaskError("f", "Traceback", cause)
    for error in (
        task,
        task.as_instanceof_cause(),
        ray.train.WorkerGroupError("failed", {0: task}),
        ray.train.ControllerError(task),
    ):
        named = explain(error)
        assert str(named).startswith("/out/a.parquet: No space left on device; fix: ")
        assert named is not None
        assert named.exit_code == 1
    ours = ray.exceptions.RayTaskError("f", "Traceback", CheckpointError("m is damaged"))
    assert str(explain(ours.as_instanceof_cause())) == "m is damaged"


def data_error(text: str) -> Exception:
    """Return an error of Ray Data, which has the worker's error only as text."""
    return ray.exceptions.RayTaskError("f", text, ray.exceptions.UserCodeException("x")).as_instanceof_cause()


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device: '/x/y'", "/x/y: No space left on device; fix: "),
        ("OSError: [Errno 28] No space left on device: '/x/y' -> '/x/z'", "/x/y: No space left on device; fix: "),
        ("PermissionError: [Errno 13] Permission denied: '/x/y'", "/x/y: Permission denied; fix: "),
        ("botocore.exceptions.EndpointConnectionError: Could not connect", "Could not connect; fix: "),
        ("aupipe.errors.CheckpointError: m is damaged", "m is damaged"),
        ("TypeError: bad operand", None),
        ("nosuch.module.Error: x", None),
        ("OSError: [Errno 22] Invalid argument", None),
    ],
)
def test_the_text_of_a_worker_of_ray_data_is_read(last: str, sentence: str | None) -> None:
    text = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise OSError: [Errno 5] not this\n'
        f"{last}\n\nThe above exception was the direct cause of the following exception:\n\n"
        "ray::Map(f)() (pid=1, ip=127.0.0.1)\nray.exceptions.UserCodeException: UDF failed to process a data block.\n"
        "To change retry attempts, configure `ray.data`"
    )
    named = explain(data_error(text))
    assert (named is None) if sentence is None else str(named).startswith(sentence)
    during = text.replace(last, f"{last}\n\nDuring handling of the above exception, another exception occurred:\n\n"
                          "Traceback (most recent call last):\nTypeError: ours")  # fmt: skip
    assert explain(data_error(during)) is None


def test_a_failed_write_reports_the_file_and_leaves_no_partial_file(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            storage.write("a/b.bin", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(explain(error.value)).startswith(f"{tmp_path}/a/b.bin: File too large; fix: ")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device: '/x/y'", "/x/y: No space left on device; fix: "),
        (
            "safetensors._safetensors_rust.SafetensorError: I/O error: full (os error 28)",
            "I/O error: full (os error 28)",
        ),
        ("RuntimeError: no GPU", None),
    ],
)
def test_the_text_of_an_actor_that_could_not_be_created_is_read(last: str, sentence: str | None) -> None:
    task = ray.exceptions.RayTaskError("A.__init__", f"Traceback\n  f()\n  ^^^\n{last}", RuntimeError("x"))
    error = ray.exceptions.ActorDiedError(task)
    assert (explain(error) is None) if sentence is None else str(explain(error)).startswith(sentence)
    assert is_of_machine(error) == (sentence is not None)


def write_safetensors(path: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(100_000)}, path)


def write_with_torch(path: Path) -> None:
    torch.save({"x": torch.zeros(100_000)}, path)


@pytest.mark.parametrize("write", [write_safetensors, write_with_torch])
def test_a_state_that_does_not_fit_is_of_the_machine(write: Callable[[Path], None], tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Exception, match=r"os error 27|unexpected pos") as error:
            write(tmp_path / "state")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert is_of_machine(error.value)
    assert "name another folder" in str(explain(error.value))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (os_error(errno.ENOSPC), True),
        (client_error("ExpiredToken"), True),
        (os_error(errno.ENOMEM), False),
        (ray.exceptions.OutOfMemoryError("killed"), False),
        (ray.exceptions.NodeDiedError("gone"), False),
        (RuntimeError("CUDA out of memory"), False),
        (ConfigError("the loss is nan"), False),
    ],
)
def test_memory_and_nodes_are_no_errors_of_the_machine(error: Exception, expected: bool) -> None:
    assert is_of_machine(error) == expected
    outer = ConfigError("cannot be read")
    outer.__cause__ = error
    assert is_of_machine(outer) == expected


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    with pytest.raises(FileNotFoundError) as error, tempfile.TemporaryFile():
        pass
    assert "fix: export TMPDIR=" in str(explain(error.value))


@pytest.mark.parametrize("name", ["x", "below/x"])
def test_a_file_at_the_path_of_a_folder_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(NotADirectoryError) as error:
        Storage(tmp_path / "out").write(name, b"")
    assert str(explain(error.value)).startswith(f"{tmp_path}/out")
    assert str(explain(error.value)).endswith(": Not a directory; fix: name a folder, not a file")
