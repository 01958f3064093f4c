"""The options of annotate.py, without a run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from aupipe.commands import annotate, job
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`parse(ARGUMENT, …)`: the options as the job receives them. Paths are relative to an empty folder."""
    monkeypatch.chdir(tmp_path)
    received: list[argparse.Namespace] = []

    def body(args: argparse.Namespace) -> int:
        received.append(args)
        return job.DONE

    monkeypatch.setattr(annotate, "_annotate", body)

    def parse_arguments(*arguments: str) -> argparse.Namespace:
        assert annotate.main(arguments) == job.DONE
        return received[-1]

    return parse_arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.mp4", "b.mp4", "c.mp4", "--out", "o"),
        ("--out", "o", "a.mp4", "b.mp4", "c.mp4"),
        ("a.mp4", "--out", "o", "b.mp4", "--limit", "3", "c.mp4"),
        ("--input", "a.mp4", "b.mp4", "--out", "o", "--input", "c.mp4"),
        ("a.mp4", "--input", "b.mp4", "c.mp4", "--out", "o"),
        ("a.mp4", "b.mp4", "--out", "o", "--input", "c.mp4"),
    ],
)
def test_inputs_are_positional_or_options_or_both(parse, arguments: tuple[str, ...], tmp_path: Path) -> None:
    args = parse(*arguments)
    assert [*args.paths, *args.input] == [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    assert args.out == str(tmp_path / "o")


def test_a_uri_is_unchanged_and_phases_are_american(parse, capsys: pytest.CaptureFixture[str]) -> None:
    for phase in ("observe", "finalize", "all"):
        args = parse("s3://bucket/a.mp4", "--out", "s3://bucket/o", "--phase", phase)
        assert (args.paths, args.out, args.phase) == (["s3://bucket/a.mp4"], "s3://bucket/o", phase)
    assert parse("a.mp4", "--out", "o").phase == "all"
    with pytest.raises(SystemExit, match=r"^2$"):
        parse("a.mp4", "--out", "o", "--phase", "finalise")
    assert "finalize" in capsys.readouterr().err


def test_no_input_exits_2_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from aupipe.commands.annotate import main\n"
        f"code = main(['--out', {str(tmp_path / 'o')!r}])\n"
        "print(code, sorted({'torch', 'ray', 'cv2', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert done.stderr == (
        "annotate.py: no input (at least one is required); fix: name a video, folder, URI or manifest\n"
    )
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.mp4",), "--out"),
        (("a.mp4", "--out", "o", "--limit", "0"), "0 is not a positive number"),
        (("a.mp4", "--out", "o", "--limit", "1.5"), "1.5 is not a positive number (1, 2, …)"),
        (("a.mp4", "--out", "o", "--workers", "two"), "two is not a positive number (1, 2, …)"),
        (("a.mp4", "--out", "o", "--export", "csv,xml"), "'xml' is none of csv, openface, events, elan, abaw"),
    ],
)
def test_wrong_options_exit_2(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        annotate.main(arguments)
    assert message in capsys.readouterr().err


def test_a_repeated_export_adds_its_forms(parse) -> None:
    assert parse("a.mp4", "--out", "o", "--export", "csv,elan", "--export", "openface").export == [
        "csv", "elan", "openface",
    ]  # fmt: skip
    assert parse("a.mp4", "--out", "o").export == []


@pytest.mark.parametrize("mark", ["run.json", "store.json", "scores.json"])
def test_missing_inputs_leave_the_folder_of_another_job_alone(
    mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / mark).write_text("{}")
    assert annotate.main([str(tmp_path / "gone.mp4"), "--out", str(out)]) == 2
    assert f"({mark}), and an annotation would be mixed with it" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [mark]


@pytest.mark.parametrize("option", ["--workers 4", "--set encoders=2"])
def test_numbers_of_processes_are_refused_where_there_is_only_this_one(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(write_clip(tmp_path / "a.mp4", scene(2))), "--out", str(tmp_path / "o"), *option.split()]
    for dry in ([], ["--dry-run"]):
        assert annotate.main([*command, "--set", "engine=local", *dry]) == 2
        assert f"{option}: engine=local runs in one process; fix: leave one of them out" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert annotate.main([*command, "--dry-run"]) == 0


def test_two_sampling_rates_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["a.mp4", "--out", str(tmp_path / "o"), "--sample-fps", "10"]
    assert annotate.main([*command, "--set", "sample_fps=5"]) == 2
    assert "--sample-fps 10 and --set sample_fps=5.0 (give one)" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
