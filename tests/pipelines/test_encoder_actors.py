"""Encoders in processes of their own, as on GPUs: the same tables without stored features, also if a device fails."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pytest
import ray
import torch

from aupipe.annotation.model_set import ModelSet
from aupipe.commands.annotate import main
from aupipe.pipelines import encoder_actors
from harness.clips import scene, write_clip


class FailsOnce(encoder_actors.EncoderActor):
    """An encoder whose device fails at its first call."""

    mark = ""

    def __init__(self, models: ModelSet, batch_size: int, device: str) -> None:
        super().__init__(models, batch_size, device)
        self._fatal = (torch.AcceleratorError,)
        if not Path(self.mark).exists():
            self._encoders = self  # type: ignore[assignment]

    def __call__(self, crops: list[np.ndarray]) -> np.ndarray:
        Path(self.mark).touch()
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.ray
@pytest.mark.parametrize("fails", [False, True])
def test_encoders_of_packets(
    fails: bool, ray_session: None, exported_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, people in enumerate([(0.5,), (), (0.25, 0.75)]):
        write_clip(tmp_path / "in" / f"{number}.mp4", scene(12, size=(320, 160), face=110, people=people, seed=number))
    command = ["--input", str(tmp_path / "in"), "--checkpoint", exported_checkpoint, "--out"]
    if fails:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Workers cannot import tests.
        monkeypatch.setattr(FailsOnce, "mark", str(tmp_path / "mark"))
        monkeypatch.setattr(encoder_actors, "EncoderActor", FailsOnce)
    encoders = ["--workers", "1", "--set", "engine=ray", "--set", "encoders=1"]
    assert main([*command, f"{tmp_path}/elsewhere", *encoders]) == 0
    assert main([*command, f"{tmp_path}/here", "--set", "engine=local"]) == 0
    order = [(name, "ascending") for name in ("video_id", "frame", "face_id")]
    elsewhere, here = (
        pads.dataset(tmp_path / out / "frames").to_table().sort_by(order) for out in ("elsewhere", "here")
    )
    assert elsewhere.sort_by(order).equals(here.sort_by(order))
    assert (tmp_path / "mark").exists() == fails
    assert not (tmp_path / "elsewhere/_work/observed").exists()
    assert not list((tmp_path / "elsewhere/_logs").glob("*"))


class FindsNoGpu(encoder_actors.EncoderActor):
    """An encoder on a node with a GPU and a torch without CUDA."""

    def __init__(self, models: ModelSet, batch_size: int, device: str) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")


@pytest.mark.ray
def test_an_encoder_that_cannot_be_created_ends_the_job(
    ray_session: None, exported_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Workers cannot import tests.
    monkeypatch.setattr(encoder_actors, "EncoderActor", FindsNoGpu)
    write_clip(tmp_path / "a.mp4", scene(12))
    command = ["--input", f"{tmp_path}/a.mp4", "--checkpoint", exported_checkpoint, "--out", f"{tmp_path}/out"]
    assert main([*command, "--workers", "1", "--set", "engine=ray", "--set", "encoders=1"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("annotate.py: ")]
    assert line.startswith(
        "annotate.py: an encoder cannot be created on a node of the cluster (AssertionError: Torch not compiled with "
        "CUDA enabled); fix: "
    )
    assert not (tmp_path / "out/videos.parquet").exists()


@pytest.mark.ray
def test_encoders_that_leave_no_cpu_to_decode_are_refused(
    ray_session: None, exported_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "a.mp4", scene(12))
    command = ["--input", str(tmp_path / "a.mp4"), "--checkpoint", exported_checkpoint, "--out", f"{tmp_path}/out"]
    limit = ["--set", "limits.no_progress_s=20"]  # for which tasks would wait
    assert main([*command, "--set", "engine=ray", "--set", "encoders=4", *limit]) == 2
    assert "encoders=4 take all CPUs of the cluster (4)" in capsys.readouterr().err
