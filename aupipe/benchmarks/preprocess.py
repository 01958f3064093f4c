"""How fast crops are packed into a store, and whether memory stays flat when there are more of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from aupipe import facs
from aupipe.benchmarks import processes
from aupipe.errors import AupipeError
from aupipe.faces import CROP_SIZE_PX
from aupipe.facestore import jpeg

_FRAMES = 1000  # a generated video has
_DETAIL = 20  # pixels of noise a side, enlarged: makes a JPEG of about 9 KB, a little more than a face does
_RUN = "import sys; from aupipe.commands.preprocess import main; sys.exit(main(sys.argv[1:]))"


def measure(crops: int) -> dict[str, Any]:
    """Rate of `preprocess.py` on so many generated crops, and its peak memory against that for a quarter of them.

    The rate is that of the packing alone; `wall_s` is of the whole command, starting Ray included. Memory is the
    proportional share (PSS) of every process of the command, Ray's own included.
    """
    with tempfile.TemporaryDirectory() as folder:
        quarter, whole = (_run(Path(folder) / str(count), count) for count in (crops // 4, crops))
    return {
        "crops": crops, **whole, "peak_mb_of_a_quarter": quarter["peak_mb"],
        "growth": round(whole["peak_mb"] / quarter["peak_mb"] - 1, 3),
    }  # fmt: skip


def _run(folder: Path, crops: int) -> dict[str, float]:
    _generate(folder / "data", crops)
    command = [sys.executable, "-c", _RUN, "--data", str(folder / "data"), "--out", str(folder / "store")]
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
    rates = re.findall(r"unit=rows rate=([\d.]+)", text)  # the last line tells of the whole
    if run.returncode or not rates:
        raise AupipeError(f"preprocess.py ended with {run.returncode}: {text.strip().splitlines()[-1:]}")
    return {"crops_per_s": float(rates[-1]), "wall_s": round(wall, 1), "peak_mb": round(peak / 1024, 1)}


def _generate(root: Path, crops: int) -> None:
    """Videos of _FRAMES labeled crops each, every fourth for validation."""
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
