"""Workers of videos with large frames reserve the memory that they need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Row, SegmentTask, memory_bytes
from aupipe.media.frames import Span
from aupipe.pipelines.annotate import Extract
from harness.ray_runner import runner_with

pytestmark = pytest.mark.ray


class Reserved(Extract):
    """A stage that returns the memory that its worker has reserved."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, row: Row) -> Iterator[Row]:
        memory = ray.get_runtime_context().get_assigned_resources().get("memory", 0.0)
        yield {"last": True, "error": "", "frames": 0, "large": "large" in row["tasks"], "memory": memory}


def test_workers_of_large_frames_reserve_memory_up_to_that_of_a_node(
    ray_session: None, exported_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_with(Reserved, "Extract", exported_checkpoint, tmp_path, AnnotateConfig(), monkeypatch)
    (node,) = ray.nodes()

    def reserved(needed: dict[str, int]) -> dict[bool, float]:
        segments = {name: Segment(name, name, 0, 0, 6000, Span(6000, exact=True)) for name in needed}
        rows = runner.extract([SegmentTask(name, segments[name], count) for name, count in needed.items()])
        return {row["large"]: row["memory"] for row in rows}

    eight_k = memory_bytes(7680 * 4320)
    assert eight_k > 2.4 * 10**9  # 2.35 GB were measured
    assert reserved({"usual": memory_bytes(3840 * 2160), "large": eight_k}) == {False: 0, True: eight_k}
    assert reserved({"large": 10**15}) == {True: int(node["Resources"]["memory"])}
