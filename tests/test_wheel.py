"""The wheel, installed outside of the clone: the commands, the recipes and the starter models are in it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import MakeStore

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without what this process would add to its imports, and return its standard output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, because a build writes beside them."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "aupipe", source / "aupipe", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # Without isolation nothing is downloaded, but setuptools must be new enough for pyproject.toml.
    new_enough = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    options = ["--no-build-isolation"] if new_enough else []
    run(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--wheel-dir", dist, *options, cwd=source)
    return next(dist.glob("aupipe-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and, of this environment, everything but aupipe."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    # A path in a .pth file is searched last, and .pth files in it (that of an editable aupipe) have no effect.
    (packages / "others.pth").write_text(f"{importlib.metadata.distribution('torch').locate_file('')}\n")
    return folder / "bin"


def test_the_wheel_has_what_the_commands_need_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = [*(ROOT / "aupipe/recipes").glob("*.yaml"), *(ROOT / "aupipe/weights").rglob("*.*")]
    assert {path.relative_to(ROOT).as_posix() for path in expected if path.is_file()} <= names
    assert "aupipe/py.typed" in names
    assert not [name for name in names if not name.startswith(("aupipe/", "aupipe-"))]


def test_import_and_recipes(installed: Path, make_store: MakeStore, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import aupipe; print(aupipe.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    plan = run(
        installed / "aupipe", "train", "--recipe", "region_relation", "--quick", "--data", make_store(), "--out", "run",
        "--dry-run", cwd=tmp_path,
    )  # fmt: skip
    assert "region_relation" in plan


def test_annotate(installed: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 160, 120
        for value in range(5):
            image = np.full((120, 160, 3), 40 * value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    text = run(installed / "aupipe", "annotate", "--input", "clip.mp4", "--out", "out", cwd=tmp_path)
    assert "starter models" in text
    rows = pq.read_table(tmp_path / "out" / "frames").to_pylist()
    assert [row["status"] for row in rows] == ["no_face"] * 5
