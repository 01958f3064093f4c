"""The rate at which crops are packed into a store, and the growth of memory with their number."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from aupipe import facs
from aupipe.errors import AupipeError
from aupipe.faces import CROP_SIZE_PX
from aupipe.facestore import jpeg
from harness import processes

_FRAMES = 1000  # frames of a generated video
_DETAIL = 20  # side of the noise in pixels; enlarged it makes a JPEG of about 9 KB, slightly more than a face does


def measure(crops: int) -> dict[str, Any]:
    """Return the rate of `preprocess.py` on generated crops, and its peak memory against that for a quarter of them.

    The rate is that of packing only. `wall_s` covers the whole command, including the start of Ray. Memory is the
    proportional set size (PSS) summed over all processes of the command, including Ray's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        quarter, whole = (_run(Path(folder) / str(count), count) for count in (crops // 4, crops))
    return {
        "crops": crops, **whole, "peak_mb_of_a_quarter": quarter["peak_mb"],
        "growth": round(whole["peak_mb"] / quarter["peak_mb"] - 1, 3),
    }  # fmt: skip


def _run(folder: Path, crops: int) -> dict[str, float]:
    """Pack this many crops. Returns the rate, the time and the peak memory."""
    _generate(folder / "data", crops)
    command = processes.command("preprocess", "--data", str(folder / "data"), "--out", str(folder / "store"))
    start, peak = time.monotonic(), 0
    with open(folder / "log", "w+") as log:
        run = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while run.poll() is None:
                peak = max(peak, sum(processes.memory_kb(p)["pss"] for p in processes.of_session(run.pid)))
                time.sleep(0.2)
        finally:
            processes.end(run.pid)
        wall = time.monotonic() - start
        log.seek(0)
        text = log.read()
    rates = re.findall(r"unit=rows rate=([\d.]+)", text)  # the last line covers the whole job
    if run.returncode or not rates:
        raise AupipeError(f"preprocess.py ended with {run.returncode}: {text.strip().splitlines()[-1:]}")
    return {"crops_per_s": float(rates[-1]), "wall_s": round(wall, 1), "peak_mb": round(peak / 1024, 1)}


def _generate(root: Path, crops: int) -> None:
    """Write videos of _FRAMES labeled crops each; every fourth is for validation."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_DETAIL, _DETAIL, 3), dtype=np.uint8)
    image = jpeg.encode(cv2.resize(noise, (CROP_SIZE_PX, CROP_SIZE_PX)))
    for video in range(max(2, -(-crops // _FRAMES))):
        labels = root / "annotations/AU_Detection_Challenge" / ("Train_Set" if video % 4 else "Validation_Set")
        folder = root / f"cropped_aligned/v{video}"
        for path in (labels, folder):
            path.mkdir(parents=True, exist_ok=True)
        lines = [",".join(row) for row in rng.integers(0, 2, (_FRAMES, len(facs.AUS))).astype(str)]
        (labels / f"v{video}.txt").write_text("\n".join([",".join(facs.AFFWILD2_AUS), *lines]))
        for frame in range(1, _FRAMES + 1):
            (folder / f"{frame:05d}.jpg").write_bytes(image)
