"""The measurement of the driver at the sizes at which counting fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aupipe.errors import ConfigError
from harness import scale

pytestmark = pytest.mark.unit


class Lines(list[dict[str, Any]]):
    """The lines of a run, as its process sends them."""

    send = list.append


@pytest.mark.parametrize(("clips", "videos"), [(1, 0), (0, 1), (5, 2)])
def test_all_files_are_annotated_and_then_unchanged(clips: int, videos: int, tmp_path: Path) -> None:
    archive, out = f"{tmp_path}/in", f"{tmp_path}/out"
    assert (
        scale.write_archive(archive, {"clip": clips, "long": videos}, {"clip": 9.0, "long": 300.0}, None)
        == clips + videos
    )
    first, unchanged = Lines(), Lines()
    for lines in (first, unchanged):
        scale.annotate_unread(archive, out, 9.0, 5.0, {}, lines)  # type: ignore[arg-type]
    phases = [line["phase"] for line in first]
    assert ("annotate" in phases, "extract" in phases, phases[-1]) == (clips > 0, videos > 0, "end")
    assert all(min(line["seconds"], line["cpu_s"], line["worker_s"]) >= 0 and line["peak_mb"] > 0 for line in first)
    assert sum(line["worker_s"] for line in first) > 0
    assert [line["phase"] for line in unchanged] == ["import", "end"]
    table = pq.read_table(f"{out}/videos.parquet")
    assert table["frames_decoded"].to_pylist() == [225] * clips + [7500] * videos


def test_an_archive_on_s3() -> None:
    lines = list(scale.measure(5, 2.0, 1, minutes=5, remote=True))
    phases = {line["phase"] for line in lines if "phase" in line}
    assert {"probe", "annotate", "extract", "finalize"} <= phases  # Sizes are those of videos.
    first, unchanged = (line for line in lines if "phase" not in line)
    assert first["files"] == unchanged["files"] == 6
    assert 0 < unchanged["requests_per_file"] < first["requests_per_file"]


def test_no_files_are_an_error() -> None:
    with pytest.raises(ConfigError, match="no file"):
        list(scale.measure(0, 30.0, 0, minutes=1, remote=False))
