"""Peak memory of each kind of worker for a long video, against that for one minute of it; and intermediate files."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aupipe.errors import AupipeError
from harness import processes
from harness.clips import repeat, scene, speaking

_CLIP_S = 10
_KINDS = re.compile(r"ray::.*\b(Probe|ExtractAudio|Extract|Finalize)\b")
_EVERY_S = 0.1


def measure(checkpoint: str, minutes: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each length, then the growth from the short to the long video.

    `peak_mb` is the peak of a process's own memory, see `processes.memory_kb`. `work_mb` is the peak size of OUT/_work,
    in which a finished run keeps only its ledger.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = scene(25 * _CLIP_S, size=(128, 112), face=96)
        clip = speaking(folder / "clip.mkv", images, options={"g": "25", "preset": "ultrafast"})
        short, long = (_run(folder, clip, checkpoint, length) for length in (1, minutes))
        yield short
        yield long
    growth = {kind: round(peak / short["peak_mb"][kind] - 1, 3) for kind, peak in long["peak_mb"].items()}
    yield {"minutes": minutes, "growth": growth, "largest_mb": max(long["peak_mb"].values())}


def _run(folder: Path, clip: Path, checkpoint: str, minutes: int) -> dict[str, Any]:
    """Annotate a video of this length. Returns its line."""
    video = repeat(clip, _CLIP_S, 60 * minutes // _CLIP_S, folder / f"{minutes}.mkv")
    out = folder / f"out {minutes}"
    # Only Ray has workers; without the setting, the short video runs in one process.
    command = processes.command(
        "annotate", "--input", str(video), "--checkpoint", checkpoint, "--out", str(out), "--workers", "1",
        "--set", "engine=ray",
    )  # fmt: skip
    start, peak_kb, work = time.monotonic(), dict[str, int](), 0
    with open(folder / "log", "w+") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while run.poll() is None:
                for process, title in processes.of_session(run.pid).items():
                    if kind := _KINDS.search(title):
                        peak_kb[kind[1]] = max(peak_kb.get(kind[1], 0), processes.memory_kb(process)["own"])
                work = max(work, _size(out / "_work"))
                time.sleep(_EVERY_S)
        finally:
            processes.end(run.pid)
        log.seek(0)
        text = log.read()
    video.unlink()
    if run.returncode:
        raise AupipeError(f"annotate.py ended with {run.returncode}: {text.strip().splitlines()[-1:]}")
    return {
        "minutes": minutes, "peak_mb": {kind: round(kb / 1024, 1) for kind, kb in sorted(peak_kb.items())},
        "work_mb": round(work / 2**20, 1), "wall_s": round(time.monotonic() - start, 1),
    }  # fmt: skip


def _size(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # the file was deleted meanwhile
    return total
