"""Placement on pools of nodes, requests to the autoscaler, and progress in Ray's metrics."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
import ray

from aupipe.config import Resources
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import label_selector_for, reserved_resources

pytestmark = pytest.mark.ray


def test_without_labels_every_node_is_allowed(ray_session: None) -> None:
    assert label_selector_for("decode", Resources()) is None
    assert label_selector_for("decode", Resources(pools=True)) == {"pool": "decode"}
    assert label_selector_for("decode", Resources(pools=False)) is None


def test_reserved_resources_are_withdrawn_at_the_end(ray_session: None) -> None:
    from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.experimental.internal_kv import _internal_kv_get

    def requested() -> list:
        return json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL))

    with reserved_resources([("decode", {"CPU": 1}), ("infer", {"GPU": 1, "CPU": 1})], Resources(pools=True)):
        assert requested() == [{"CPU": 1}, {"GPU": 1, "CPU": 1}]
    assert requested() == []


@pytest.mark.slow
def test_progress_shows_in_rays_metrics(ray_session: None) -> None:
    progress = Progress("observe", 30, "frames")
    progress.add(20)
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    expected = {"aupipe_done_total{": "20.0", "aupipe_left{": "10.0"}
    deadline = time.monotonic() + 120
    while True:
        lines = urllib.request.urlopen(address, timeout=30).read().decode().splitlines()
        found = [line for line in lines if "aupipe_" in line and 'stage="observe"' in line and 'unit="frames"' in line]
        if all(any(name in line and line.endswith(value) for line in found) for name, value in expected.items()):
            return
        assert time.monotonic() < deadline, [line for line in lines if "aupipe" in line]
        time.sleep(1)
