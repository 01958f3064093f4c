"""Placement on pools of nodes, requests to the autoscaler, and progress in Ray's metrics."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import pytest
import ray

from aupipe.config import Resources
from aupipe.edge_errors import running
from aupipe.errors import EnvironmentFailure
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import actor_pool, label_selector_for, reserved_resources, slots, with_time_for
from aupipe.pipelines.train_stage import TrainJob, inference_resources
from aupipe.pipelines.tune_search import trials_at_once
from aupipe.pipelines.tune_trial import TuneJob
from aupipe.training import recipe

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


def test_a_long_task_is_no_lack_of_progress(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1.0)

    def slow(row: dict[str, int]) -> dict[str, int]:
        time.sleep(3)
        return row

    assert [row["id"] for row in with_time_for(1, ray.data.range(1).map(slow)).iter_rows()] == [0]
    with pytest.raises(EnvironmentFailure, match=r"^Dataset execution made no progress .*; fix: check"), running():
        list(ray.data.range(1).map(slow).iter_rows())


def test_models_have_room_on_the_nodes_of_their_pool_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(alive: bool = True, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
        return {"Alive": alive, "Labels": labels or {}, "Resources": resources}

    nodes = [node(CPU=2), node(CPU=16, labels={"pool": "decode"}), node(CPU=3, GPU=1, labels={"pool": "train"})]
    nodes.append(node(alive=False, CPU=8, labels={"pool": "train"}))
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert slots(Resources(gpu=False), "train") == 3  # more workers would wait for a place without end
    assert slots(Resources(gpu=True), "train") == 1
    assert slots(Resources(gpu=False), "infer") == 21  # no node has this label
    assert slots(Resources(gpu=False, pools=True), "infer") == 1


def test_pools_start_with_one_actor_and_request_what_settings_say(ray_session: None) -> None:
    def sizes(resources: Resources, tasks: int, rows: int = 100_000) -> tuple[int, int, int]:
        pool = actor_pool(resources, tasks, rows)
        return pool.min_size, pool.max_size, pool.initial_size

    assert sizes(Resources(), 9) == (1, 4, 4)
    assert sizes(Resources(), 3) == (1, 3, 3)
    assert sizes(Resources(workers=8), 20) == (1, 8, 8)
    assert [sizes(Resources(workers=8), 20, rows)[1] for rows in (0, 1, 1024, 1025, 2048)] == [1, 1, 1, 2, 2]
    assert sizes(Resources(gpu=True), 20) == (1, 1, 1)
    assert sizes(Resources(gpu=True, workers=2), 20) == (1, 2, 2)


def test_trials_at_a_time(ray_session: None) -> None:
    def number(workers: int = 1, concurrent: int | None = None, **resources: Any) -> int:
        plan = recipe.read("multilabel_transformer", quick=True).model_copy(
            update={"resources": Resources(**resources)}
        )
        return trials_at_once(TuneJob(plan, "store", "out", workers=workers, concurrent=concurrent))

    assert number() == 4
    assert number(workers=2) == 2
    assert number(concurrent=3) == 3
    assert number(gpu=True) == 4  # no node has a GPU yet
    assert number(workers=2, pools=True) == 4  # more nodes come


def test_train_and_tune_ask_for_as_many_models_as_workers(ray_session: None) -> None:
    plan = recipe.read("multilabel_transformer", quick=True)
    for workers, resources, expected in [
        (None, {}, 4), (2, {}, 4), ((1, 8), {}, 8), ((1, 8), {"workers": 2}, 2), (3, {"gpu": True}, 3)
    ]:  # fmt: skip
        changed = plan.model_copy(update={"resources": Resources(**resources)})
        assert inference_resources(TrainJob(changed, "store", "out", workers)).workers == expected
