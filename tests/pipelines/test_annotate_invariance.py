"""Tables are bit-identical for any number of workers and any split into segments."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from aupipe.commands.annotate import main
from harness.chaos import tables
from harness.clips import scene, write_clip

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a clip of 5 s that becomes two or three segments of 2 s, one of two people, and one without a face."""
    folder = tmp_path_factory.mktemp("archive")
    short = {"g": "10", "bf": "2"}
    write_clip(folder / "long.mp4", scene(125, size=(240, 200)), options=short)
    write_clip(folder / "two.mkv", scene(70, size=(480, 240), people=(0.25, 0.75)), options=short)
    write_clip(folder / "nobody.mp4", scene(60, size=(160, 120), people=()), options=short)
    return folder


@pytest.fixture(scope="module")
def whole(ray_session: None, archive: Path, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return annotated(archive, checkpoint, tmp_path_factory.mktemp("whole"), 1, 1e9)


def annotated(archive: Path, checkpoint: str, out: Path, workers: int, segment_s: float) -> dict[str, pa.Table]:
    options = ["--workers", str(workers), "--set", f"segment_s={segment_s}"]
    if workers == 2:
        packet_frames = 0 if segment_s == 20.0 else 6000  # 0: the stages of long videos
        options += ["--set", "encoders=2", "--set", f"object_store_bytes={2**28}"]
        options += ["--set", f"packet_frames={packet_frames}"]
    assert main(["--input", str(archive), "--checkpoint", checkpoint, "--out", str(out), *options]) == 0
    return tables(out)


@pytest.mark.parametrize("segment_s", [2.0, 20.0, 1e9])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_and_segments_leave_no_trace(
    workers: int, segment_s: float, archive: Path, whole: dict, checkpoint: str, tmp_path: Path
) -> None:
    found = annotated(archive, checkpoint, tmp_path, workers, segment_s)
    assert whole["frames"].num_rows == 125 + 2 * 70 + 60
    for name, table in whole.items():
        assert found[name].equals(table)
