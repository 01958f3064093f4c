"""How long a finished archive takes when the same command is given again, and when only thresholds change."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aupipe.benchmarks import processes
from aupipe.benchmarks.clips import scene, write_clip
from aupipe.errors import AupipeError

_FRAMES = 3  # of a clip
_SHIFTS = 50  # clips from one drawing, each moved sideways by another amount


def measure(checkpoint: str, clips: int) -> Iterator[dict[str, Any]]:
    """A line a run: frames decoded, and seconds by the job's own clock: its imports left out, starting Ray not."""
    with tempfile.TemporaryDirectory() as folder:
        archive, out = Path(folder) / "archive", Path(folder) / "out"
        for number in range(clips):
            if number % _SHIFTS == 0:
                images = scene(_FRAMES, size=(128, 112), face=96, seed=number)
            moved = [np.roll(image, number % _SHIFTS, axis=1) for image in images]
            write_clip(archive / f"{number:05d}.mp4", moved, options={"preset": "ultrafast"})
        command = processes.annotate("--input", str(archive), "--checkpoint", checkpoint, "--out", str(out))
        yield {"run": "first", "clips": clips, **_run(command)}
        yield {"run": "again", "clips": clips, **_run(command)}
        yield {"run": "other threshold", "clips": clips, **_run([*command, "--set", "thresholds.AU12=0.3"])}


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = re.search(r"([\d,]+) frames decoded in ([\d.]+) s", done.stdout)
    if done.returncode or said is None:
        raise AupipeError(f"annotate.py ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return {"frames_decoded": int(said[1].replace(",", "")), "seconds": float(said[2])}
