"""Annotation with the default model in a new process: it imports neither torch nor timm nor Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit

_COMMAND = """
import json, sys
from aupipe.commands.annotate import main
code = main([sys.argv[1], "--out", sys.argv[2]])
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""
_CALL = """
import json, sys
import aupipe
rows = len(aupipe.annotate(sys.argv[1]).frames)
print(json.dumps([rows, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(("code", "expected"), [(_COMMAND, 0), (_CALL, 3)])
def test_the_default_model_needs_no_torch(code: str, expected: int, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", scene(3))
    done = subprocess.run(
        [sys.executable, "-c", code, clip, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result, packages = json.loads(done.stdout.splitlines()[-1])
    assert result == expected
    assert "onnxruntime" in packages
    heavy = {"torch", "torchvision", "torchaudio", "timm", "ray", "matplotlib", "scipy", "aiohttp"}
    assert sorted(heavy.intersection(packages)) == []
