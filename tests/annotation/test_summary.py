"""videos.parquet: one row per input; further columns of manifests are kept, also by runs without the manifest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aupipe.annotation import ledger_entries
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.record_columns import to_table
from aupipe.annotation.schema import EVENTS, FRAMES, REASONS
from aupipe.annotation.skipped_files import SkippedFiles
from aupipe.annotation.summary import Summary, write_videos
from aupipe.annotation.video_record import VideoRecord
from aupipe.commands.annotate import main
from aupipe.errors import MediaError
from aupipe.storage import Storage
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit


def test_further_columns_stand_beside_the_video(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    record = VideoRecord("a.mp4", "a", status="ok", decide_key="k", fingerprint="f")
    ledger_entries.commit(storage, FRAMES.empty_table(), EVENTS.empty_table(), [record], 1, 10)
    aside = {"b": VideoRecord("b.mp4", "b", status="quarantined", reason="not_found: b.mp4")}
    listed = [Input("a.mp4", "a", further={"speaker": "anna"}), Input("b.mp4", "b", further={"speaker": ""})]
    write_videos(storage, Ledger.read(storage), aside, Inputs.of(listed))
    further = Inputs.of([Input("c.mp4", "c", further={"room": "1"})])
    write_videos(storage, Ledger.read(storage), {}, further)
    table = pq.read_table(tmp_path / "videos.parquet")
    rows = {row["video_id"]: row for row in table.to_pylist()}
    assert {key: row["speaker"] for key, row in rows.items()} == {"a": "anna", "b": ""}
    assert rows["b"]["reason"] == "not_found: b.mp4"
    assert "room" not in table.column_names  # of a video that does not exist


def test_the_end_of_a_run_says_what_was_passed_over() -> None:
    def text(skipped: SkippedFiles) -> str:
        return Summary("out", to_table([]), 0, 0, 1.0, 0.0, 0.0, skipped).text()

    passed = SkippedFiles()
    assert text(passed).count("\n") == 0
    for name in ("in/a.srt", "in/b.SRT", "in/c.dat", "in/d.srt"):
        passed.add(name)
    passed.hide("in/.Trash-1000")
    assert text(passed).splitlines()[1] == (
        "4 other files skipped: 3 .srt, 1 .dat (first: in/a.srt, in/b.SRT, in/c.dat); "
        "1 hidden or system files and folders skipped (first: in/.Trash-1000)"
    )


def test_the_end_of_a_run_counts_reasons_and_names_the_next_command() -> None:
    reasons = ("not_found: b", "frames_lost: 2 of 9 (3-4)", "not_found: c")
    videos = [VideoRecord(f"{n}", f"{n}", status="partial", reason=reason) for n, reason in enumerate(reasons)]
    lines = Summary("my out", to_table(videos), 0, 9, 1.0, 1.0, 0.0).text().splitlines()
    assert lines[2] == "reasons: 2 not_found, 1 frames_lost"
    assert lines[3:6] == [f"  {n}: partial: {reason}" for n, reason in enumerate(reasons)]
    assert lines[6:] == ["for pages with player and curves: aupipe report 'my out'"]


def test_the_end_of_a_run_lists_twenty_reasons_and_counts_the_others() -> None:
    videos = [VideoRecord(f"{n:02d}", f"{n:02d}", status="quarantined", reason="not_found: x") for n in range(20)]
    lines = Summary("out", to_table(videos), 0, 0, 1.0, 0.0, 0.0).text().splitlines()
    assert lines[1:] == ["reasons: 20 not_found", *(f"  {n:02d}: quarantined: not_found: x" for n in range(20))]
    more = [*videos, VideoRecord("20", "20", status="partial", reason="truncated: y", frames_decoded=1)]
    lines = Summary("out", to_table(more), 0, 0, 1.0, 0.0, 0.0).text().splitlines()
    assert lines[1] == "reasons: 20 not_found, 1 truncated"
    assert lines[21:] == ["  19: quarantined: not_found: x", "  … and 1 more; all reasons are in out/videos.parquet"]


def test_names_neither_steer_a_terminal_nor_forge_a_line() -> None:
    name = "a\x1b[2J\r\n  b\u202e.mp4 – 映\u3000画"
    skipped = SkippedFiles()
    skipped.add(name)
    videos = [VideoRecord(name, name, status="partial", reason=f"truncated: {name}")]
    _, passed, line = Summary("out", to_table(videos), 0, 0, 1.0, 0.0, 0.0, skipped).text().split("\n")
    shown = r"a\x1b[2J\r\n  b\u202e.mp4 – 映" + "\u3000画"
    assert passed.endswith(f"(first: {shown})")
    assert line == f"  {shown}: partial: truncated: {shown}"


def test_the_end_of_a_run_has_the_rate_of_each_stage_that_worked() -> None:
    stages = {"decode": 2.0, "encode": 4.0, "finalize": 0.0}
    summary = Summary(
        "out", to_table([]), 0, 100, 5.0, 3600.0, 1.5, stages=stages, bound_by="encode", better_encoders=3
    )
    assert summary.rates == {
        "decode": {"work_s": 2.0, "frames_per_s": 50.0}, "encode": {"work_s": 4.0, "frames_per_s": 25.0},
    }  # fmt: skip
    assert summary.text().splitlines()[1:] == [
        "1.000 CPU-hours, 36.000 s per frame, cost 1.50",
        "  stage        seconds  frames/s",
        "  decode           2.0      50.0",
        "  encode           4.0      25.0  bound the run",
        "  encoder-bound: set encoders=3, which keeps all processes busy",
    ]


@pytest.mark.parametrize(
    ("video", "usable", "incomplete", "faults"),
    [
        ({"status": "ok", "frames_decoded": 9}, 1, 0, 0),
        ({"status": "ok"}, 1, 0, 0),
        ({"status": "duplicate", "duplicate_of": "b"}, 1, 0, 0),
        ({"status": "partial", "frames_decoded": 1, "reason": "truncated: x"}, 1, 1, 0),
        ({"status": "partial", "frames_decoded": 0, "reason": "truncated: x"}, 0, 1, 0),
        ({"status": "quarantined", "reason": "not_found: a"}, 0, 1, 0),
        ({"status": "quarantined", "reason": "internal_error: ValueError: x"}, 0, 1, 1),
    ],
)
def test_inputs_that_decide_the_exit_code(video: dict, usable: int, incomplete: int, faults: int) -> None:
    summary = Summary("out", to_table([VideoRecord("a", "a", **video)] * 2), 0, 0, 1.0, 0.0, 0.0)
    assert (summary.usable, summary.incomplete, summary.faults) == (2 * usable, 2 * incomplete, 2 * faults)
    assert replace(summary, pending=3).usable == 2 * usable + 3
    assert ("an error in aupipe (internal_error) affected 2 inputs" in summary.text()) == bool(faults)


@pytest.mark.parametrize(("interrupted", "named"), [(False, True), (True, False)])
def test_a_run_of_one_phase_names_the_command_that_makes_the_rows(interrupted: bool, named: bool) -> None:
    text = Summary("out", to_table([]), 2, 9, 1.0, 1.0, 0.0, interrupted=interrupted).text()
    assert text.startswith("2 not finalized yet; 9 frames decoded")
    assert ("2 inputs have no rows of this run yet; fix: re-run the command without --phase" in text) == named
    assert "aupipe report" not in text


def test_the_end_of_a_run_says_where_the_rows_of_duplicates_are() -> None:
    videos = [VideoRecord("a", "a", status="ok"), VideoRecord("b", "b", status="duplicate", duplicate_of="a")]
    assert Summary("out", to_table(videos), 0, 0, 1.0, 0.0, 0.0).text().splitlines()[1:] == [
        "1 duplicate has no rows or exports: take those of the input that duplicate_of names in out/videos.parquet"
    ]


def test_the_frames_of_a_run_are_those_that_have_rows_and_were_extracted(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "in/a.mp4", scene(3, size=(96, 72), face=64))
    shutil.copy(clip, tmp_path / "in/b.mp4")
    command = [f"{tmp_path}/in", "--checkpoint", checkpoint, "--out", f"{tmp_path}/out", "--set", "engine=local"]
    assert main(command) == 0
    assert "bound the run" in capsys.readouterr().out
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["statuses"] == {"duplicate": 1, "ok": 1}
    assert run["frames"] == {"expected": 3, "decoded": 3, "lost": 0, "corrupt": 0}
    assert main([*command, "--set", "thresholds.AU12=0.3"]) == 0  # reads no video
    assert "frames/s" not in capsys.readouterr().out
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert (run["frames_observed"], run["bound_by"]) == (0, "")


def test_every_reason_has_a_code_that_is_documented() -> None:
    def below(error: type[MediaError]) -> set[str]:
        return {error.reason}.union(*(below(each) for each in error.__subclasses__()))

    assert below(MediaError) <= set(REASONS)
