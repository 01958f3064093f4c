"""annotate.py as a user runs it, with a worker killed in the middle: the same tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as pads
import pytest
import torch
from clips import scene, write_clip

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models.build import ModelConfig, build
from aupipe.models.checkpoint import Card, save
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage

pytestmark = pytest.mark.cluster

JOB = Path(__file__).parents[2] / "jobs" / "annotate.py"


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                found[int(folder.name)] = (parent, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    return found


def _workers_of(driver: int) -> list[int]:
    """Ray workers that decode or encode, among the driver's own descendants."""
    processes = _processes()

    def descends(pid: int) -> bool:
        while pid in processes:
            pid = processes[pid][0]
            if pid == driver:
                return True
        return False

    return [p for p, (_, line) in processes.items() if ("Decode" in line or "Encode" in line) and descends(p)]


def _tables(out: Path) -> list:
    order = [("video_id", "ascending"), ("frame", "ascending"), ("face_id", "ascending")]
    return pads.dataset(out / "frames").to_table().sort_by(order).to_pylist()


def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config, spec = ModelConfig(backbone="test_resnet", width=32, heads=2, mlp_width=32), InputSpec()
    template = tuple(map(tuple, ARCFACE_TEMPLATE.tolist()))
    save(Storage(tmp_path / "model"), build(config, spec).eval(), Card(model=config, input=spec, template=template))
    for number in range(8):
        clip = tmp_path / "archive" / f"{number}.mp4"
        write_clip(clip, scene(100, size=(480, 360), seed=number), options={"preset": "ultrafast"})

    def command(out: str) -> list[str]:
        inputs = ["--input", str(tmp_path / "archive"), "--checkpoint", str(tmp_path / "model")]
        return [sys.executable, str(JOB), *inputs, "--out", str(tmp_path / out), "--workers", "2"]

    job = subprocess.Popen(command("killed"))
    killed: set[int] = set()
    deadline = time.monotonic() + 300
    while job.poll() is None and len(killed) < 2 and time.monotonic() < deadline:
        if list((tmp_path / "killed").glob("_work/observed/*.parquet")):  # it is in the middle now
            for pid in [p for p in _workers_of(job.pid) if p not in killed][:1]:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.3)
    assert job.wait(timeout=300) == 0
    assert killed, "the job ended before a worker could be killed"
    assert subprocess.run(command("undisturbed"), timeout=300, check=False).returncode == 0
    assert _tables(tmp_path / "killed") == _tables(tmp_path / "undisturbed")
