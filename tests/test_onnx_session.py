"""ONNX Runtime sends no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

_DETECT = "from aupipe.faces.detect import Detector, DetectorConfig; Detector(DetectorConfig())"


def test_no_telemetry(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", _DETECT], env=env, check=True)
    # It would write an identifier of the device and a queue of events before it sends any.
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path)]
