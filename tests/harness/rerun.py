"""The time of a finished archive when the same command is run again, and when only thresholds change."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aupipe.errors import AupipeError
from harness import processes
from harness.clips import scene, write_clip

_FRAMES = 3  # frames of a clip
_SHIFTS = 50  # clips that share one drawing, each shifted sideways by another amount


def measure(checkpoint: str, clips: int) -> Iterator[dict[str, Any]]:
    """Yield a line per run: decoded frames, and seconds by the job's own clock.

    That clock excludes the job's imports and includes the start of Ray.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive, out = Path(folder) / "archive", Path(folder) / "out"
        for number in range(clips):
            if number % _SHIFTS == 0:
                images = scene(_FRAMES, size=(128, 112), face=96, seed=number)
            shifted = [np.roll(image, number % _SHIFTS, axis=1) for image in images]
            write_clip(archive / f"{number:05d}.mp4", shifted, options={"preset": "ultrafast"})
        command = processes.command("annotate", "--input", str(archive), "--checkpoint", checkpoint, "--out", str(out))
        yield {"run": "first", "clips": clips, **_run(command)}
        yield {"run": "again", "clips": clips, **_run(command)}
        yield {"run": "other threshold", "clips": clips, **_run([*command, "--set", "thresholds.AU12=0.3"])}


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = re.search(r"([\d,]+) frames decoded in ([\d.]+) s", done.stdout)
    if done.returncode or summary is None:
        raise AupipeError(f"annotate.py ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return {"frames_decoded": int(summary[1].replace(",", "")), "seconds": float(summary[2])}
