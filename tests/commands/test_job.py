"""Exit codes of errors: one sentence for a cause outside aupipe, a traceback for a fault of its own code."""

from __future__ import annotations

import argparse
import errno
import io
import os
import subprocess
import sys

import pytest

from aupipe.commands import job
from aupipe.errors import ConfigError

pytestmark = pytest.mark.unit


def run(error: BaseException | None, *arguments: str) -> int:
    def body(_: argparse.Namespace) -> int:
        if error is not None:
            raise error
        return 3

    return job.run(job.make_parser("test.py", "A test.", "  none"), body, arguments)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("x: 1\n(2)"), 2, "test.py: x: 1 (2)\n"),
        (OSError(errno.EROFS, "No", "/x"), 2, "test.py: /x: No; fix: name a folder that can be written\n"),
        (OSError(errno.ENOSPC, "Full", "/x"), 1, "test.py: /x: Full; fix: free space or name another folder, then run "
         "the same command again\n"),
        (KeyboardInterrupt(), 130, "test.py: interrupted; re-run the same command to resume\n"),
        (None, 3, ""),
    ],
)  # fmt: skip
def test_one_sentence_and_a_code(
    error: BaseException | None, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(error) == code
    assert capsys.readouterr().err == message


def test_verbose_prints_the_traceback_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(OSError(errno.ENOSPC, "Full", "/x"), "--verbose") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "OSError: [Errno 28] Full: '/x'"
    assert lines[-1].startswith("test.py: /x: Full; fix: ")


def test_a_fault_of_aupipe_keeps_its_traceback_and_exits_1() -> None:
    program = (
        "import sys; from aupipe.commands import job\n"
        "sys.exit(job.run(job.make_parser('t', 't', 't'), lambda args: 1 / 0, []))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_locale_that_cannot_print_a_name_does_not_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="ascii"))
    assert run(ConfigError("…/Müller.mp4")) == 2
    sys.stderr.flush()
    assert written.getvalue() == b"test.py: \\u2026/M\\xfcller.mp4\n"


def test_the_table_needs_no_library() -> None:
    """The exceptions of many libraries have a sentence, but `--help` must not import these libraries."""
    program = (
        "import sys, aupipe.commands.job; print(sorted({'ray', 'torch', 'botocore', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "[]\n"
