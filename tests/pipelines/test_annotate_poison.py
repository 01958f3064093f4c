"""An input that kills its worker, and one that hangs it, cost themselves only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from clips import scene, write_clip

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# A driver whose workers have a decoder that does not survive two of the clips.
DRIVER = """
import sys
import ray

def poisoned():
    import ctypes, time
    from aupipe.pipelines import annotate_observe as stages
    frames = stages.frames
    def decode(uri, *more):
        if uri.endswith("poison.mp4"):
            ctypes.string_at(0)
        for number, frame in enumerate(frames(uri, *more)):
            if uri.endswith("hang.mp4") and number == 3:
                time.sleep(600)
            yield frame
    stages.frames = decode

if __name__ == "__main__":
    quiet = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 150 * 2**20}
    ray.init(address="local", num_cpus=3, runtime_env={"worker_process_setup_hook": poisoned}, **quiet)
    from aupipe.commands.annotate import main
    sys.exit(main(sys.argv[1:]))
"""


def test_a_killing_and_a_hanging_input_are_set_aside(checkpoint: str, tmp_path: Path) -> None:
    for name in ("a", "hang", "poison", "z"):
        write_clip(tmp_path / "in" / f"{name}.mp4", scene(10, seed=ord(name[0])))
    options = ["--workers", "2", "--set", "limits.attempts=2", "--set", "limits.stall_s=8"]
    command = [sys.executable, "-c", DRIVER, "--input", str(tmp_path / "in"), "--checkpoint", checkpoint]
    done = subprocess.run([*command, "--out", str(tmp_path / "out"), *options], timeout=500, check=False)
    assert done.returncode == 3
    records = {row["video_id"]: row for row in pq.read_table(tmp_path / "out" / "videos.parquet").to_pylist()}
    assert {key: row["status"] for key, row in records.items()} == {
        "a.mp4": "ok", "hang.mp4": "quarantined", "poison.mp4": "quarantined", "z.mp4": "ok",
    }  # fmt: skip
    assert records["poison.mp4"]["reason"].startswith("worker_died: the worker died 2 times")
    assert records["hang.mp4"]["reason"].startswith("timed_out: nothing moved for 8 s")
    assert records["z.mp4"]["frames_decoded"] == 10
