"""annotate.py as a process: a killed worker or a killed job does not change the tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from harness import processes
from harness.clips import scene, write_clip

pytestmark = pytest.mark.cluster

CLIPS, FRAMES = 4, 50
JOB = Path(__file__).parents[2] / "jobs" / "annotate.py"


def _tables(out: Path) -> list[dict]:
    """Return the rows of the frames table in a fixed order."""
    order = [("video_id", "ascending"), ("frame", "ascending"), ("face_id", "ascending")]
    return pads.dataset(out / "frames").to_table().sort_by(order).to_pylist()


Command = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def command(exported_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Return `command(OUT)`: the job over a few clips with a small model of random weights."""
    folder = tmp_path_factory.mktemp("job")
    for number in range(CLIPS):
        images = scene(FRAMES, size=(320, 240), seed=number)
        write_clip(folder / "archive" / f"{number}.mp4", images, options={"preset": "ultrafast"})
    inputs = ["--input", str(folder / "archive"), "--checkpoint", exported_checkpoint, "--workers", "2"]
    inputs += ["--set", "packet_frames=0"]  # short clips end within one task, too soon to be killed in the middle
    return lambda out: [sys.executable, str(JOB), *inputs, "--out", str(folder / out)]


@pytest.fixture(scope="module")
def expected(command: Command) -> list[dict]:
    arguments = command("expected")
    assert subprocess.run(arguments, timeout=300, check=False).returncode == 0
    return _tables(Path(arguments[-1]))


def _start_and_wait_for_the_middle(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start the job and return it when a first part of its work is written and it still runs."""
    job = subprocess.Popen(arguments, start_new_session=True)
    deadline = time.monotonic() + 200
    while not list(Path(arguments[-1]).glob("_work/observed/*.parquet")):
        assert job.poll() is None, "the job ended before the test could kill it"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return job


@pytest.mark.slow  # tests/pipelines/test_annotate_poison.py is its short case
def test_a_killed_worker_does_not_change_the_tables(command: Command, expected: list[dict]) -> None:
    arguments = command("worker")
    job = _start_and_wait_for_the_middle(arguments)
    workers = [p for p, title in processes.of_session(job.pid).items() if "Extract" in title]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    assert job.wait(timeout=300) == 0
    assert _tables(Path(arguments[-1])) == expected


@pytest.mark.slow
def test_the_same_command_resumes_a_killed_job(command: Command, expected: list[dict]) -> None:
    arguments = command("driver")
    job = _start_and_wait_for_the_middle(arguments)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    again = subprocess.run(arguments, timeout=300, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    decoded = int(again.stdout.split(" frames decoded")[0].split()[-1])
    # Completed work is not repeated. Workers live a moment longer than their driver, so nothing may remain to be done.
    assert decoded < CLIPS * FRAMES
    assert _tables(Path(arguments[-1])) == expected
