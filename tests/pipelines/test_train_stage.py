"""The address of the cluster that the actors of Ray Train use."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
import ray
import ray.train
import ray.train.torch

from aupipe.pipelines.ray_internals import train_actors_use_this_cluster
from aupipe.pipelines.train_stage import fit
from aupipe.storage import Storage

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


def fail_after_each_epoch(config: dict[str, int]) -> None:
    """Report a state per epoch, as many as given, and raise an error after each but the last."""
    before = ray.train.get_checkpoint()
    done = int(Path(before.path).name.removeprefix("epoch-")) + 1 if before else 0
    if done < config["states"]:
        with tempfile.TemporaryDirectory() as local:
            (Path(local) / "state").write_text(str(done))
            saved = ray.train.Checkpoint.from_directory(local)
            ray.train.report({"score": done}, checkpoint=saved, checkpoint_dir_name=f"epoch-{done:04d}")
        time.sleep(2)  # a report younger than a poll is lost with its worker
    if done + 1 < config["epochs"]:
        raise RuntimeError(f"failed in epoch {done}")


@pytest.mark.slow
@pytest.mark.parametrize("states", [4, 2])
def test_failures_count_since_the_last_state(ray_session: None, tmp_path: Path, states: int) -> None:
    trainer = ray.train.torch.TorchTrainer(
        fail_after_each_epoch,
        train_loop_config={"epochs": 4, "states": states},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(name="stage", storage_path=str(tmp_path / "stages")),
    )
    if states == 4:
        assert fit(trainer, Storage(tmp_path), "stage").metrics["score"] == 3
    else:
        with pytest.raises(ray.train.TrainingFailedError, match="failed in epoch 2"):
            fit(trainer, Storage(tmp_path), "stage")
    assert len(list((tmp_path / "stages/stage").glob("epoch-*"))) == states
