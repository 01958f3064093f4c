"""What a Ray Train run is told of the cluster that it runs in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray
import ray.train
import ray.train.torch

from aupipe.pipelines.ray_internals import train_actors_use_this_cluster

pytestmark = pytest.mark.ray

OTHER = "192.0.2.9:6379"


class Notes(ray.train.UserCallback):
    """Writes down which Ray the controller, and whatever it starts, asks before any other of the machine."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def after_report(self, run_context: object, metrics: object, checkpoint: object) -> None:
        self._out.write_text(os.environ.get("RAY_ADDRESS", "the newest"))


def test_run_asks_after_itself_in_its_own_ray(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", OTHER)
    answer = tmp_path / "answer"
    trainer = ray.train.torch.TorchTrainer(
        lambda: ray.train.report({}),
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(storage_path=str(tmp_path / "run"), callbacks=[Notes(answer)]),
    )
    with train_actors_use_this_cluster():
        trainer.fit()
    assert answer.read_text() == ray.get_runtime_context().gcs_address
    assert os.environ["RAY_ADDRESS"] == OTHER
