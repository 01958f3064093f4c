"""An error of a stage on one input quarantines that input; an error of storage or the machine is raised."""

from __future__ import annotations

import errno
from pathlib import Path

import av
import pytest

from aupipe.annotation import faults
from aupipe.annotation.faults import INPUT_ERRORS, contain_fault, delete_logs, is_internal
from aupipe.annotation.retry import attempt
from aupipe.annotation.settings import LimitsConfig
from aupipe.errors import ConfigError, NotAVideoError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


class LibraryError(RuntimeError):
    """An unexpected error of a library."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            TypeError("ufunc 'invert' not supported\n for float64"),
            "TypeError: ufunc 'invert' not supported for float64",
        ),
        (KeyError("a"), "KeyError: 'a'"),
        (AssertionError(), "AssertionError"),
        (StopIteration(), "StopIteration"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (LibraryError("one; two"), "LibraryError: one, two"),
        (ConfigError("'x' would leave /out"), "ConfigError: 'x' would leave /out"),
        (OSError(errno.EIO, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (ValueError("s3://me:secret@host/a"), "ValueError: s3://host/a"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 300}…"),
    ],
)
def test_any_error_is_a_reason_and_its_traceback_is_kept(error: Exception, reason: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with contain_fault(storage, "a/b.mp4", INPUT_ERRORS) as outcome, attempt(storage, "unit", LimitsConfig(), 60.0):
        raise error
    (log,) = storage.names()  # and no mark of the attempt
    assert outcome.reason == f"internal_error: {reason} (see {log})"
    text = storage.read(log).decode()
    assert "video_id a/b.mp4" in text
    assert f"{__file__}" in text
    assert "raise error" in text
    assert "secret" not in text
    assert is_internal(outcome.reason)


def test_the_causes_of_an_error_are_kept_with_their_secrets_struck_out(tmp_path: Path) -> None:
    with contain_fault(Storage(tmp_path), "v") as outcome:
        try:
            raise OSError("GET https://host/a.mp4?signature=hunter2 failed")
        except OSError as error:
            raise ValueError("no\ud800 length") from error
    (log,) = Storage(tmp_path).names()
    text = Storage(tmp_path).read(log).decode()
    assert "OSError: GET https://host/a.mp4?… failed" in text
    assert "\\ud800" in text
    assert "hunter2" not in text + outcome.reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotAVideoError("text"), "not_a_video: text"),
        (av.error.InvalidDataError(1, "bad"), "decoder_failed: "),
        (MemoryError("big"), "decoder_failed: big"),
    ],
)
def test_hostile_input_is_no_fault_of_ours(error: Exception, reason: str, tmp_path: Path) -> None:
    with contain_fault(Storage(tmp_path), "v", INPUT_ERRORS) as outcome:
        raise error
    assert outcome.reason.startswith(reason)
    assert not is_internal(outcome.reason)
    assert Storage(tmp_path).names() == []
    with contain_fault(Storage(tmp_path), "v") as outcome:  # where no input is read
        raise error
    assert is_internal(outcome.reason)


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"), OSError("SlowDown: reduce your rate"),
        RuntimeError("EndpointConnectionError"), LibraryError("a device that is broken"),
    ],
)  # fmt: skip
def test_what_is_no_inputs_fault_is_raised(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)), contain_fault(Storage(tmp_path), "v", INPUT_ERRORS, fatal=(LibraryError,)):
        raise error
    assert Storage(tmp_path).names() == []


def test_an_output_folder_that_refuses_is_no_inputs_fault(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    storage = Storage(tmp_path / "out")
    with pytest.raises(NotADirectoryError), contain_fault(Storage(tmp_path), "v"):
        storage.write("frames/a", b"")
    with pytest.raises(NotADirectoryError), contain_fault(storage, "v"):  # not even the log can be written
        raise TypeError
    with contain_fault(Storage(tmp_path), "v") as outcome:  # the same error from anywhere else
        (tmp_path / "out" / "a").write_text("")
    assert outcome.reason.startswith("internal_error: NotADirectoryError: ")


def test_nothing_raised_no_reason(tmp_path: Path) -> None:
    with contain_fault(Storage(tmp_path), "v") as outcome:
        pass
    assert outcome.reason == ""
    assert Storage(tmp_path).names() == []


def test_several_inputs_leave_no_log_and_those_tried_again_lose_theirs(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with contain_fault(storage, None) as outcome:
        raise ValueError("one of them")
    assert outcome.reason == "internal_error: ValueError: one of them"
    assert storage.names() == []
    for video_id in ("a", "b"):
        with contain_fault(storage, video_id):
            raise ValueError
    delete_logs(storage, ["a", "c"])
    (left,) = storage.names(faults.LOGS)
    assert "video_id b" in storage.read(left).decode()


def test_a_reason_may_be_one_of_several() -> None:
    assert is_internal("truncated: it ends early; internal_error: ValueError: no")
    assert not is_internal("truncated: internal_error")
    assert not is_internal(None)
