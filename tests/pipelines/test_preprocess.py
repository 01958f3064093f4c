"""Preprocessing on Ray writes the same store as a plain loop, also after it is killed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from aupipe import facs
from aupipe.affwild2 import job as jobs
from aupipe.facestore import jpeg
from aupipe.pipelines.preprocess import preprocess
from aupipe.storage import Storage

# One annotation row a part: many parts, so that a kill hits the middle.
RUN = """
import sys
import aupipe.affwild2.plan as plan
from aupipe.commands.preprocess import main
plan.FILE_ROWS = 1
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def tree(tmp_path):
    """Write a data set of twelve training rows and four validation rows, with one gray crop each."""
    root = tmp_path / "data"
    for split, video, rows in (("Train_Set", "a", 12), ("Validation_Set", "b", 4)):
        folder = root / "annotations/AU_Detection_Challenge" / split
        folder.mkdir(parents=True)
        folder.joinpath(f"{video}.txt").write_text("\n".join([",".join(facs.AFFWILD2_AUS), *["0," * 11 + "1"] * rows]))
        (root / "cropped_aligned" / video).mkdir(parents=True)
        for row in range(1, rows + 1):
            picture = np.full((112, 112, 3), row, np.uint8)
            (root / "cropped_aligned" / video / f"{row:05d}.jpg").write_bytes(jpeg.encode(picture))
    return root


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_a_loop(tree, out):
    job = jobs.prepare(str(tree), str(out), None, jobs.PreprocessConfig())
    for task in job.files():
        Storage(out).write(task.name, task.make())
    job.complete()


@pytest.mark.ray
def test_ray_and_a_loop_write_the_same_store(tree, tmp_path):
    in_a_loop(tree, tmp_path / "loop")
    preprocess(jobs.prepare(str(tree), str(tmp_path / "cluster"), None, jobs.PreprocessConfig()))
    assert files(tmp_path / "cluster") == files(tmp_path / "loop")


@pytest.mark.cluster
@pytest.mark.slow  # the same store from Ray and from a loop is its short case
def test_a_killed_run_ends_in_the_same_store(tree, tmp_path, monkeypatch):
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    def start():
        command = [sys.executable, "-c", RUN, "--data", str(tree), "--out", str(killed)]
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)

    def parts(out):
        return list(out.glob("split=*/*.parquet"))

    run = start()
    until = time.monotonic() + 120
    while not parts(killed) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert 0 < len(parts(killed)) < 16, "the kill missed the middle"
    assert not (killed / "store.json").exists()
    (killed / "split=train").mkdir(exist_ok=True)
    (killed / "split=train" / ".aupipe-tmp-left").write_bytes(b"half a file")
    assert start().wait(timeout=120) == 0
    monkeypatch.setattr("aupipe.affwild2.plan.FILE_ROWS", 1)
    in_a_loop(tree, whole)
    assert files(killed) == files(whole)
    assert len(parts(whole)) == 16
