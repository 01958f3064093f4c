"""The address of the cluster that the actors of Ray Train use."""

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


class RecordAddress(ray.train.UserCallback):
    """A callback that records the Ray address in the environment of Ray Train's controller."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def after_report(self, run_context: object, metrics: object, checkpoint: object) -> None:
        self._out.write_text(os.environ.get("RAY_ADDRESS", "the newest"))


def test_the_actors_of_a_run_use_its_own_ray(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", OTHER)
    address = tmp_path / "address"
    trainer = ray.train.torch.TorchTrainer(
        lambda: ray.train.report({}),
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(storage_path=str(tmp_path / "run"), callbacks=[RecordAddress(address)]),
    )
    with train_actors_use_this_cluster():
        trainer.fit()
    assert address.read_text() == ray.get_runtime_context().gcs_address
    assert os.environ["RAY_ADDRESS"] == OTHER
