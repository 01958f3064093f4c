"""Probing on Ray: a task is small, so a long list of slow probes is progress, and a stalled cluster ends the job."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray

from aupipe.annotation.inputs import Input
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Probe, ProbeRequest, ProbeResult, Row
from aupipe.errors import EnvironmentFailure
from aupipe.pipelines import annotate as on_ray
from harness.ray_runner import runner_with

pytestmark = pytest.mark.ray


class SlowProbe(Probe):
    def __call__(self, row: Row) -> Row:
        time.sleep(0.5)
        return ProbeResult(ProbeRequest.from_row(row).video.video_id).to_row()


def test_the_guard_passes_slow_probes_and_ends_a_stall(
    ray_session: None, exported_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 s of probes on two workers, with a guard of 8 s."""
    config = AnnotateConfig(limits={"no_progress_s": 8.0})
    runner = runner_with(SlowProbe, "Probe", exported_checkpoint, tmp_path, config, monkeypatch)
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "execution_no_progress_timeout_s", -1)
    requests = [ProbeRequest(Input(f"{number}.mp4", str(number))).to_row() for number in range(48)]
    assert len(list(runner.probe(requests[:8]))) == 8  # The start of workers takes longer than the guard on busy cores.
    on_ray._configure(config)
    probed: list[int] = []
    while missing := [request for number, request in enumerate(requests) if number not in probed]:
        found = [int(row["video_id"]) for row in runner.probe(missing)]
        assert found  # A task ends after `_PROBE_S`, with the results that it has, and the rest is probed again.
        probed += found
    assert sorted(probed) == list(range(48))
    monkeypatch.setattr(on_ray, "_PROBE_S", 30.0)
    stall = (
        r"^probe: no result for 8 s, with 1 nodes alive; waited for.* 2 active task.*raise --set limits.no_progress_s$"
    )
    with pytest.raises(EnvironmentFailure, match=stall):
        list(runner.probe(requests))
