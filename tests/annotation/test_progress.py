"""The line of a job's progress, and the stage that bounds a run."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from aupipe.annotation.model_stages import Group
from aupipe.annotation.packets import Packet
from aupipe.annotation.progress import JobProgress, StageWork
from aupipe.annotation.runner import LocalRunner
from aupipe.annotation.stages import Row
from aupipe.commands.annotate import main
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_line_counts_what_is_done_and_what_is_left() -> None:
    clock = Clock()
    progress = JobProgress(shown=False, clock=clock)
    progress.expect_inputs(4)
    clock.now += 2
    progress.add_probed("not_a_video: a")
    assert progress.line() == "probed 1 of 4 inputs, 0.5/s, 6 s left; quarantined: 1 not_a_video"
    progress.expect_videos(3, 90_000)
    clock.now += 100
    progress.add_frames(1000, {"decode": 1.0, "detect": 2.0}, 3.0)
    progress.add_videos(1)
    assert progress.line() == (
        "1 of 3 videos, 1,000 of 90,000 frames, 10.0 frames/s, 2 h 28 min left; quarantined: 1 not_a_video"
    )
    progress.add_videos(2, ["timed_out: b", "not_a_video: c"])
    progress.add_frames(89_000, {})
    assert progress.line().endswith("900.0 frames/s; quarantined: 2 not_a_video, 1 timed_out")
    assert progress.work.seconds == {"decode": 1.0, "detect": 2.0, "encode": 3.0}


def test_nothing_to_do_is_a_line_too() -> None:
    progress = JobProgress(shown=False, clock=Clock())
    progress.expect_videos(0, 0)
    assert progress.line() == "probed 0 of 0 inputs, 0.0/s"
    progress.expect_videos(2, 0)
    progress.add_videos(1)
    assert progress.line() == "1 of 2 videos, 0 of 0 frames, 0.0 frames/s, 0 s left"


def test_lines_of_a_log_are_a_minute_apart(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    progress = JobProgress(clock=clock)
    progress.expect_videos(9, 9)
    with caplog.at_level(logging.INFO):
        for _ in range(9):
            clock.now += 29
            progress.add_frames(1, {})
    assert len(caplog.messages) == 3
    assert caplog.messages[0].startswith("0 of 9 videos, 3 of 9 frames")


def test_a_terminal_has_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = JobProgress(clock=clock)
    progress.expect_videos(2, 2)
    for _ in range(2):
        clock.now += 1
        progress.add_frames(1, {})
    progress.close()
    assert capsys.readouterr().err == (
        "\x1b[2K0 of 2 videos, 1 of 2 frames, 1.0 frames/s, 1 s left\r"
        "\x1b[2K0 of 2 videos, 2 of 2 frames, 1.0 frames/s\r\x1b[2K"
    )


def work(encode_s: float) -> StageWork:
    found = StageWork()
    found.workers.update({"decode": 100.0, "detect": 200.0})
    found.encoders.update({"encode": encode_s})
    return found


@pytest.mark.parametrize(
    ("encode_s", "workers", "encoders", "bound", "better"),
    [
        (300.0, 3, 1, "encode", 2),  # of four processes, two decode and two encode
        (90.0, 3, 1, "detect", None),
        (250.0, 1, 0, "encode", None),  # one process does all
        (150.0, 1, 0, "detect", None),
        (59.0, 9, 1, "encode", None),  # too short to advise
        (310.0, 1, 1, "encode", None),  # two processes cannot be divided better
    ],
)
def test_the_busiest_processes_bound_a_run(
    encode_s: float, workers: int, encoders: int, bound: str, better: int | None
) -> None:
    assert work(encode_s).bound_by(workers, encoders) == bound
    assert work(encode_s).better_encoders(workers, encoders) == better


def test_without_work_nothing_bounds() -> None:
    assert StageWork().bound_by(1, 0) == StageWork().bound_by(2, 1) == ""
    assert StageWork().better_encoders(2, 1) is None


def test_an_interrupted_run_writes_what_is_done(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        write_clip(tmp_path / f"in/{name}.mp4", scene(3, size=(96, 72), face=64, seed=ord(name)))
    (tmp_path / "in/d.mp4").write_text("no video")
    command = ["--input", f"{tmp_path}/in", "--checkpoint", checkpoint, "--out", f"{tmp_path}/out"]
    command += ["--set", "engine=local"]
    whole = LocalRunner.annotate_packets

    def terminated(self: LocalRunner, packets: Sequence[Packet]) -> Iterator[Row]:
        (packet,) = packets
        for row in (0, 1, 3):
            yield from whole(self, [Packet(packet.generation, packet.pending.subset(np.array([row])))])
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(LocalRunner, "annotate_packets", terminated)
        assert main(command) == 130
    statuses = {row["video_id"]: row["status"] for row in pq.read_table(tmp_path / "out/videos.parquet").to_pylist()}
    assert statuses == {"a.mp4": "ok", "b.mp4": "ok", "d.mp4": "quarantined"}
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert (run["interrupted"], run["frames_observed"], run["statuses"]) == (True, 6, {"ok": 2, "quarantined": 1})
    capsys.readouterr()
    assert main(command) == 3
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert (run["interrupted"], run["frames_observed"], run["statuses"]) == (False, 3, {"ok": 3, "quarantined": 1})
    assert set(run["stages"]) == {"decode", "detect", "encode", "finalize"}
    assert run["bound_by"] == max(run["stages"], key=lambda stage: run["stages"][stage]["work_s"])
    assert sum(stage["work_s"] for stage in run["stages"].values()) < run["seconds"]
    assert "  bound the run\n" in capsys.readouterr().out


def test_an_interrupted_run_leaves_no_replaced_rows(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        write_clip(tmp_path / f"in/{name}.mp4", scene(3, size=(96, 72), face=64, seed=ord(name)))
    command = ["--input", f"{tmp_path}/in", "--checkpoint", checkpoint, "--out", f"{tmp_path}/out"]
    command += ["--set", "engine=local"]
    assert main(command) == 0
    whole = LocalRunner.finalize

    def interrupted(self: LocalRunner, groups: Sequence[Group]) -> Iterator[Row]:
        yield from whole(self, groups)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalRunner, "finalize", interrupted)
    assert main([*command, "--set", "thresholds.AU12=0.0"]) == 130
    frames = pads.dataset(tmp_path / "out/frames").to_table()
    assert sorted(frames["video_id"].to_pylist()) == ["a.mp4"] * 3 + ["b.mp4"] * 3
    assert set(frames["AU12"].to_pylist()) == {True}


@pytest.mark.parametrize(("columns", "longest"), [(60, 59), (0, 200)])  # 0: a terminal that does not know its width
def test_the_line_of_a_terminal_is_not_wrapped(columns: int, longest: int) -> None:
    code = (
        "from aupipe.annotation.progress import JobProgress\n"
        "progress = JobProgress(clock=iter(range(0, 99, 3)).__next__)\n"
        "progress.expect_videos(12_345, 1_234_567)\n"
        "for _ in range(3): progress.add_videos(1, ['not_a_video: a', 'decoder_failed: b'])\n"
        "progress.close()\n"
    )
    shown, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True)
    lines = os.read(shown, 4096).decode().replace("\x1b[2K", "").split("\r")[:-1]
    assert len(lines) == 3
    assert lines[0].startswith("1 of 12,345 videos, 0 of 1,234,567 frames")
    assert 50 < max(map(len, lines)) <= longest
    for each in (shown, terminal):
        os.close(each)
