"""Ray Train: the address that its actors use, uploads beside the training, and failures since the last state."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
import ray
import ray.train
import ray.train.torch

from aupipe.errors import ConfigError
from aupipe.pipelines.ray_internals import train_actors_use_this_cluster
from aupipe.pipelines.train_stage import _first_error, fit
from aupipe.pipelines.train_worker import _Upload
from aupipe.storage import Storage

pytestmark = pytest.mark.ray

OTHER = "192.0.2.9:6379"


class RecordAddress(ray.train.UserCallback):
    """A callback that records the Ray address in the environment of Ray Train's controller."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def after_report(self, run_context: object, metrics: object, checkpoint: object) -> None:
        self._out.write_text(os.environ.get("RAY_ADDRESS", "the newest"))


def upload_states(config: dict[str, str]) -> None:
    """Upload three states of 1 MB; the name of the one that is named in `blocked` is taken by a file."""
    upload = _Upload()
    for number in range(3):
        name = f"epoch-{number:04d}"
        upload.wait()
        assert not list(Path(config["local"]).iterdir())  # so no two uploads run at a time
        local = Path(config["local"], name)
        local.mkdir()
        (local / "state").write_bytes(bytes([number]) * 2**20)
        if name == config["blocked"]:
            Path(config["states"], name).write_text("a file")
        upload.start(str(local), {"score": number}, name)


def uploading(tmp_path: Path, blocked: str = "") -> ray.train.torch.TorchTrainer:
    (tmp_path / "local").mkdir()
    places = {"local": str(tmp_path / "local"), "states": str(tmp_path / "stages/stage"), "blocked": blocked}
    return ray.train.torch.TorchTrainer(
        upload_states,
        train_loop_config=places,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name="stage", storage_path=str(tmp_path / "stages"), callbacks=[RecordAddress(tmp_path / "address")]
        ),
    )


@pytest.mark.slow
def test_a_run_uses_its_own_ray_and_ends_after_its_last_upload(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", OTHER)
    with train_actors_use_this_cluster():
        result = uploading(tmp_path).fit()
    assert (tmp_path / "address").read_text() == ray.get_runtime_context().gcs_address
    assert os.environ["RAY_ADDRESS"] == OTHER
    assert result.checkpoint.path.endswith("epoch-0002")
    for number in range(3):
        assert (tmp_path / f"stages/stage/epoch-{number:04d}/state").read_bytes() == bytes([number]) * 2**20
    assert not list((tmp_path / "local").iterdir())


@pytest.mark.slow
def test_an_upload_that_fails_ends_the_worker(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(ray.train.TrainingFailedError, match="epoch-0001"):
        uploading(tmp_path, blocked="epoch-0001").fit()


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


FULL = OSError(28, "No space left on device", "/run/x")
QUOTED = "training failed after 3 restarts: RuntimeError: CUDA out of memory"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ray.train.WorkerGroupError("trace", {1: FULL}), "/run/x: No space left on device; fix: free space"),
        (ray.train.ControllerError(FULL), "/run/x: No space left on device; fix: free space"),
        (ray.train.WorkerGroupError("trace", {0: FULL, 1: ConfigError("of aupipe")}), "of aupipe"),
        (ray.train.WorkerGroupError("trace", {0: RuntimeError("CUDA out of memory")}), QUOTED),
    ],
)
def test_a_full_disk_of_a_worker_is_reported_with_the_fix(
    error: ray.train.TrainingFailedError, sentence: str
) -> None:  # fmt: skip
    assert str(_first_error(error)).startswith(sentence)
