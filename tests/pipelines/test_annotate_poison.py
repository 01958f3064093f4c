"""An input that crashes or stalls its worker is quarantined; the others are not affected."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from aupipe.annotation import stages
from aupipe.commands.annotate import main
from aupipe.media.frames import Frame
from aupipe.pipelines import annotate as on_ray
from harness.clips import scene, write_clip

pytestmark = pytest.mark.ray

Decoder = Callable[..., Iterator[Frame]]
FRAMES: Decoder = stages.frames


def deadly(uri: str, *more: Any) -> Iterator[Frame]:
    """Decode with a decoder that crashes or stalls on one clip."""
    for number, frame in enumerate(FRAMES(uri, *more)):
        if number == 3 and uri.endswith("poison.mp4"):
            ctypes.string_at(0)
        if number == 3 and uri.endswith("hang.mp4"):
            time.sleep(600)
        yield frame


class Decode(stages.Decode):
    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        stages.frames = deadly  # in the worker, which only has the pickled objects of this module
        return super().__call__(row)


def run(names: list[str], checkpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Run a job with this decoder, and return its records by video_id; each clip has ten frames."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(on_ray, "Decode", Decode)
    for name in names:
        write_clip(folder / "in" / name, scene(10, seed=ord(name[0])))
    options = ["--workers", "2", "--set", "limits.attempts=2", "--set", "limits.stall_s=8", "--set", "packet_frames=0"]
    command = ["--input", str(folder / "in"), "--checkpoint", checkpoint, "--out", str(folder / "out"), *options]
    assert main(command) == 3
    return {row["video_id"]: row for row in pq.read_table(folder / "out" / "videos.parquet").to_pylist()}


def test_a_killing_input_is_quarantined(
    ray_session: None, exported_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = run(["a.mp4", "poison.mp4"], exported_checkpoint, tmp_path, monkeypatch)
    assert records["poison.mp4"]["reason"].startswith("worker_died: the worker died in 2 attempts")
    assert (records["a.mp4"]["status"], records["a.mp4"]["frames_decoded"]) == ("ok", 10)


@pytest.mark.slow
def test_a_hanging_input_is_quarantined(
    ray_session: None, exported_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = run(["hang.mp4", "poison.mp4", "z.mp4"], exported_checkpoint, tmp_path, monkeypatch)
    assert records["hang.mp4"]["reason"].startswith("timed_out: no progress for 8 s")
    assert records["poison.mp4"]["reason"].startswith("worker_died: the worker died in 2 attempts")
    assert (records["z.mp4"]["status"], records["z.mp4"]["frames_decoded"]) == ("ok", 10)
