"""A training worker that is killed within an epoch: the restarted worker resumes at the last saved step."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aupipe.commands import train

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ALTERNATING = [
    "stages.identities=null", "stages.audio=null", "stages.sequence=null", "stages.visual.init=random",
    "stages.visual.epochs=2", "stages.visual.batch=8", "stages.visual.tasks.expr.data.every_n=1",
    "stages.visual.tasks.au.data.every_n=1", "input.size_px=32",
]  # fmt: skip


def newest_state(run: Path) -> str:
    """Return the folder of the newest state, with which a worker restarts; "" before the first."""
    try:
        snapshot = json.loads((run / "stages/visual/checkpoint_manager_snapshot.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # not written yet, or only in part
        return ""
    return snapshot["latest_checkpoint_result"]["checkpoint_dir_name"]


def a_worker() -> int:
    """Return the pid of a training worker of this process."""
    names = {int(path.name): (path / "stat").read_text() for path in Path("/proc").iterdir() if path.name.isdigit()}
    parents = {pid: int(stat.rpartition(")")[2].split()[1]) for pid, stat in names.items()}
    for pid in sorted(parents, reverse=True):
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no training worker")


@pytest.mark.parametrize("alternate", ["batch", "epoch"])
def test_a_run_killed_within_an_epoch_ends_in_the_same_bits(
    alternate: str, make_store: Callable[..., str], tmp_path: Path, ray_session: None
) -> None:
    store = make_store(train=4, validation=3, frames=16)
    calm, rough = tmp_path / "calm", tmp_path / "rough"

    def start(out: Path, save_every_s: float) -> int:
        settings = [*ALTERNATING, f"stages.visual.alternate={alternate}", f"save_every_s={save_every_s}"]
        chosen = ["--recipe", "multimodal", "--quick", "--data", store, "--out", str(out), "--workers", "2"]
        return train.main(chosen + [part for setting in settings for part in ("--set", setting)])

    assert start(calm, 1000) == 0
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(start(rough, 0)))
    thread.start()
    deadline = time.monotonic() + 240
    while not newest_state(rough).startswith("epoch-0001-step-"):
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(a_worker(), signal.SIGKILL)
    thread.join()
    assert codes == [0]
    lines = [
        [
            {key: value for key, value in json.loads(line).items() if not key.endswith(("_s", "_mb"))}
            for line in (out / "metrics.jsonl").read_text().splitlines()
        ]
        for out in (calm, rough)
    ]
    assert lines[0] == lines[1]  # including the loss of the interrupted epoch
    assert newest_state(rough) == newest_state(calm) == "epoch-0001"
    for name in ("stages/visual/epoch-0001/model.safetensors", "best/model.safetensors"):
        assert (rough / name).read_bytes() == (calm / name).read_bytes(), name
    kept = {path.parent.name for path in (rough / "stages/visual").glob("epoch-*/*")}
    assert kept <= {"epoch-0000", "epoch-0001"}  # states within an epoch are deleted
