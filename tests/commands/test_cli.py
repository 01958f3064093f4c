"""The command line that all jobs share, under both of their names."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aupipe
from aupipe.commands import cli, synthesize

pytestmark = pytest.mark.unit

JOBS_DIR = Path(__file__).parents[2] / "jobs"
HEAVY = ("torch", "ray", "cv2", "av", "numpy", "pyarrow", "pydantic", "yaml", "scipy", "timm")


def printed(job: str, prog: str, option: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        importlib.import_module(f"aupipe.commands.{job}").main([option], prog=prog)
    return capsys.readouterr().out


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["aupipe", *arguments])
    return cli.main()


def test_every_file_in_jobs_is_a_job_of_the_installed_command() -> None:
    assert {path.stem for path in JOBS_DIR.glob("*.py")} - {"spot_notice"} == set(cli.JOBS)


def test_help_imports_no_heavy_library() -> None:
    """`--help` of all jobs together takes well under a second, because none of them imports what its work needs."""
    program = (
        "import importlib, sys\n"
        "from aupipe.commands import cli\n"
        "for name in cli.JOBS:\n"
        "    try: importlib.import_module(f'aupipe.commands.{name}').main(['--help'])\n"
        "    except SystemExit: pass\n"
        f"print(sorted(set({HEAVY}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
    assert done.stdout.count("\nexamples:\n") == len(cli.JOBS)


@pytest.mark.parametrize("job", cli.JOBS)
def test_both_names_of_a_job_print_the_same_help(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = printed(job, f"{job}.py", "--help", capsys)
    installed = printed(job, f"aupipe {job}", "--help", capsys)
    assert script.startswith(f"usage: {job}.py ")
    assert installed.startswith(f"usage: aupipe {job} ")
    # The usage line wraps differently under a longer name, so white space is ignored.
    in_words = re.sub(r"(?m)(^  |usage: )(\w+)\.py\b", r"\1aupipe \2", script).split()
    assert in_words == installed.split()


@pytest.mark.parametrize("job", cli.JOBS)
def test_examples_have_one_style(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = printed(job, f"{job}.py", "--help", capsys).partition("\nexamples:\n")[2].splitlines()
    assert examples
    commands = [line for line in examples if not line.startswith("    ")]
    assert all(re.match(rf"  (\w+\.py|ray job submit --working-dir \. -- python jobs/{job}\.py) ", c) for c in commands)
    assert f"  {job}.py " in commands[0]
    assert all(len(line) <= 120 for line in examples)


@pytest.mark.parametrize("job", cli.JOBS)
def test_version_of_every_job(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(job, f"{job}.py", "--version", capsys) == f"aupipe {aupipe.__version__}\n"


def test_the_script_and_the_installed_command_run_the_same_job() -> None:
    script = subprocess.run(
        [sys.executable, JOBS_DIR / "convert.py", "--help"], capture_output=True, text=True, check=True
    )
    installed = subprocess.run(
        [sys.executable, "-c", "import sys; from aupipe.commands.cli import main; sys.exit(main())", "convert", "-h"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert script.stdout.startswith("usage: convert.py ")
    assert installed.stdout.startswith("usage: aupipe convert ")


def test_the_installed_command_lists_its_jobs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "--help") == 0
    printed_help = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", printed_help, re.MULTILINE) for name in cli.JOBS)
    assert run_cli(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"aupipe {aupipe.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "aupipe: a job is required (allowed: annotate, "),
        (("anotate", "x.mp4"), "aupipe: no job 'anotate'; did you mean 'annotate'? (allowed: annotate, "),
        (("--out", "x"), "aupipe: no job '--out' (allowed: annotate, "),
    ],
)
def test_wrong_usage_exits_2(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.endswith("fix: aupipe --help\n")


@pytest.mark.parametrize("job", cli.JOBS)
def test_an_unknown_option_exits_2(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        importlib.import_module(f"aupipe.commands.{job}").main(["--no-such-option"], prog=f"aupipe {job}")
    assert f"aupipe {job}: error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("--videos", "at least 3"),
        ("--seconds", "0.4 to 60 seconds"),
        ("--stills", "0 or more"),
        ("--seed", "0 or more"),
    ],
)
def test_an_option_of_synthesize_that_is_no_number_names_the_allowed_ones(
    option: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        synthesize.main(["--out", "o", option, "many"])
    assert f"argument {option}: many ({allowed}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rig", "annie"], "--rig: annie (allowed: anny, or ict:FILE"),
        (["--rig", "ict:absent.npz"], "--rig: ict:absent.npz: no such file"),
    ],
)
def test_a_dry_run_of_synthesize_refuses_what_the_run_would_refuse(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthesize.main(["--out", str(tmp_path / "out"), "--dry-run", *options]) == 2
    assert message in capsys.readouterr().err
