"""Exit codes of errors: one sentence for a cause outside aupipe, a traceback for a fault of its own code."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aupipe.commands import annotate, job
from aupipe.errors import ConfigError
from aupipe.models import default_models

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
        (ConfigError("a\x1b[2J\u202eb: no video"), 2, "test.py: a\\x1b[2J\\u202eb: no video\n"),
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


def test_log_lines_show_control_characters_as_escapes() -> None:
    program = (
        "import logging; from aupipe.commands import job\n"
        "body = lambda _: logging.info('two\\nlines of %s', '\\x1b[2J\\u202e') or 0\n"
        "job.run(job.make_parser('x', '', ''), body, [])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.partition(" INFO ")[2] == "two\nlines of \\x1b[2J\\u202e\n"


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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_end_no_job(closed: str, tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; from aupipe.commands import job\n"
        "def body(args):\n"
        "    sys.stderr.isatty(), print('x'), print('x', file=sys.stderr)\n"
        f"    file = open({str(tmp_path / 'a')!r}, 'w')\n"
        "    subprocess.run(['sh', '-c', 'echo x; echo x >&2'], check=True)\n"
        "    return 0 if file.fileno() > 2 else 4\n"
        "sys.exit(job.run(job.make_parser('t', 't', 't'), body, []))"
    )
    command = f'"{sys.executable}" -c "$0" {closed}'
    assert subprocess.run(["sh", "-c", command, program], capture_output=True, check=False).returncode == 0
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize("streams", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_a_reader_of_the_log_that_goes_ends_no_job(streams: tuple[str, ...], tmp_path: Path) -> None:
    program = (
        "import logging, os, sys, warnings; from aupipe.commands import job\n"
        "def body(args):\n"
        "    for _ in range(2000):\n"
        "        print('x' * 100), print('x' * 100, file=sys.stderr), logging.info('x'), warnings.warn('x')\n"
        "    os.write(1, b'x'), os.write(2, b'x')\n"
        f"    open({str(tmp_path / 'a')!r}, 'w').write('done')\n"
        "    return 3\n"
        "sys.exit(job.run(job.make_parser('t', 't', 't'), body, []))"
    )
    gone, pipe = os.pipe()
    os.close(gone)
    outputs = {name: pipe if name in streams else subprocess.DEVNULL for name in ("stdout", "stderr")}
    assert subprocess.run([sys.executable, "-c", program], check=False, **outputs).returncode == 3  # type: ignore[call-overload]
    os.close(pipe)
    assert (tmp_path / "a").read_text() == "done"


def test_a_relative_name_in_a_deleted_folder_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(argparse.ArgumentTypeError, match=r"a\.mp4: the current folder was deleted; fix: "):
        job.location("a.mp4")
    assert job.location("/a.mp4") == "/a.mp4"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("annotate", ["clip.mp4", "--out", "out"]),
        ("evaluate", ["--data", "store", "--out", "out"]),
        ("submit", ["--data", "store", "--out", "out"]),
        ("bench", ["memory"]),
    ],
)
def test_starter_names_the_model_of_the_package_and_a_path_names_a_folder(
    name: str, options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(job, "run", lambda parser, _body, argv, *_: seen.append(job._parse(parser, argv)))
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"aupipe.commands.{name}").main
    for given in ("starter", "./starter", "s3://bucket/starter"):
        main([*options, "--checkpoint", given])
    found = [[args.checkpoint] if name == "bench" else args.checkpoint for args in seen]
    assert found == [[*default_models.FOLDERS], [f"{tmp_path}/starter"], ["s3://bucket/starter"]]


def test_names_after_two_dashes_may_begin_with_a_dash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(job, "run", lambda parser, _body, argv, *_: seen.append(job._parse(parser, argv)))
    monkeypatch.chdir(tmp_path)
    annotate.main(["--out", "out", "--checkpoint", "starter", "--", "-a.mp4", "b.mp4", "--c.mp4"])
    assert seen[0].paths == [f"{tmp_path}/{name}" for name in ("-a.mp4", "b.mp4", "--c.mp4")]
    assert seen[0].checkpoint == [*default_models.FOLDERS]
