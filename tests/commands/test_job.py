"""Errors become exit codes: one sentence for what is outside, a traceback for a fault of our own."""

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

    return job.run(job.make_parser("test", "A test.", "  none"), body, arguments)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("x: 1\n(2)"), 2, "test.py: x: 1 (2)\n"),
        (OSError(errno.EROFS, "No", "/x"), 2, "test.py: /x: No; fix: name a folder that can be written\n"),
        (OSError(errno.ENOSPC, "Full", "/x"), 1, "test.py: /x: Full; fix: free space or name another folder, then run "
         "the same command again\n"),
        (KeyboardInterrupt(), 130, "test.py: stopped; the same command goes on from here\n"),
        (None, 3, ""),
    ],
)  # fmt: skip
def test_one_sentence_and_a_code(
    error: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(error) == code
    assert capsys.readouterr().err == said


def test_verbose_shows_the_trace_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(OSError(errno.ENOSPC, "Full", "/x"), "--verbose") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "OSError: [Errno 28] Full: '/x'"
    assert lines[-1].startswith("test.py: /x: Full; fix: ")


def test_a_fault_of_our_own_keeps_its_traceback_and_ends_with_1() -> None:
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
    """`--help` starts at once, though errors of many libraries have a sentence."""
    program = (
        "import sys, aupipe.commands.job; print(sorted({'ray', 'torch', 'botocore', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "[]\n"
