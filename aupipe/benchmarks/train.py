"""Training samples per second, beside a plain PyTorch loop with a DataLoader over the same crops as JPEG files."""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from aupipe import facs
from aupipe.benchmarks.noise_store import generate
from aupipe.config import load
from aupipe.errors import ConfigError
from aupipe.facestore.columns import labels
from aupipe.facestore.read import FaceStore
from aupipe.models.backbone import make
from aupipe.models.interfaces import FrameEncoder, SequenceBatch, SequenceHead, System
from aupipe.storage import Storage
from aupipe.training import losses, optim, task_data
from aupipe.training import trainer as engine
from aupipe.training.learner import Learner
from aupipe.training.recipe import Recipe

_STAGE = "train"
# The model is replaced by a case's network. Without augmentation both loops do the same work.
_RECIPE = """
name: bench
model: {name: expression_transfer, backbone: test_resnet}
input: {size_px: 112}
stages:
  train:
    init: random
    tasks: {au: {loss: {kind: bce}, data: {held_out: 0}}}
    optimizer: {kind: sgd, groups: [{parameters: [""], schedule: {kind: milestones, lr: 0.001}}]}
    epochs: 1
    batch: 64
"""
_STEPS_PER_PAUSE = 16  # steps between readings of the loss, as in a run of steps of 60 ms


@dataclass(frozen=True)
class Case:
    """A network, and as many crops as an epoch of a few seconds takes."""

    backbone: str  # "" for one convolution, so that reading crops takes most of the time
    crops: int
    batch: int


CASES = {"light": Case("", 1024, 64), "heavy": Case("resnet10t", 48, 16)}


def measure(repeats: int) -> dict[str, Any]:
    """Return samples per second of aupipe's training and of the plain loop, for 1 and 2 workers on CPUs.

    All ways train the same network on the same crops, one epoch each in turn. The medians are compared. The plain loop
    runs with crops decoded in the step, and with one DataLoader process per worker; `ratio` is against the faster.

    Args:
        repeats: counted epochs of each way, at least 1; the first epoch of each way is not counted.

    Raises:
        ConfigError: `repeats` is less than 1.
    """
    if repeats < 1:
        raise ConfigError(f"--repeats {repeats}: must be at least 1")
    line: dict[str, Any] = {"repeats": repeats}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            index = generate(Storage(f"{folder}/store"), videos=1, frames=case.crops, key=name)
            _write_files(index, Path(folder))
            for workers in (1, 2):
                spawn(_worker, (workers, _free_port(), case, folder, repeats), nprocs=workers)
                line[f"{name}_{workers}"] = json.loads((Path(folder) / "result.json").read_text())
    return line


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _write_files(index: FaceStore, folder: Path) -> None:
    """Write the crops of the train split as JPEG files, and their labels."""
    (folder / "crops").mkdir()
    for group in index.row_groups("train"):
        for number, image in enumerate(index.read(group, ["image"])["image"].to_pylist(), start=group.start):
            (folder / "crops" / f"{number}.jpg").write_bytes(image)
    np.save(folder / "labels.npy", labels(index.labels("train")))


class _Encoder(FrameEncoder):
    """A backbone with pooling, or one convolution."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = make(backbone, 112) if backbone else None
        self.embed_dim = self.backbone.pooled_width if self.backbone else 8
        self.convolution = None if backbone else nn.Conv2d(3, 8, 16, stride=16)

    def forward(self, frames: Tensor) -> Tensor:
        if self.backbone is not None:
            return self.backbone.pooled(self.backbone(frames))
        assert self.convolution is not None
        features: Tensor = self.convolution(frames)
        return features.relu().mean(dim=(2, 3))


class _Head(SequenceHead):
    """A linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.au = nn.Linear(width, len(facs.AUS))

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return {"au": self.au(batch.features)}


class _Files(Dataset):
    """Crops from JPEG files, with their labels."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._labels = folder, np.load(folder / "labels.npy")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        data = (self._folder / "crops" / f"{number}.jpg").read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        return torch.from_numpy(image), torch.from_numpy(self._labels[number])


def _learner(case: Case, plan: Recipe, index: FaceStore) -> tuple[Learner, nn.Module, torch.optim.Optimizer]:
    """Return a learner, the same learner wrapped by DDP if there are several workers, and its optimizer."""
    torch.manual_seed(0)
    encoder, stage = _Encoder(case.backbone), plan.stages[_STAGE]
    assert stage.tasks.au is not None
    data = task_data.task_data(plan, _STAGE, index)["au"]
    loss = losses.build_au(stage.tasks.au.loss, data.train.positive_rates)
    learner = Learner(System(encoder=encoder, head=_Head(encoder.embed_dim)), {"au": loss})
    optimizer = optim.build(learner, stage.optimizer)
    learner = learner.to(memory_format=torch.channels_last)
    if distributed.get_world_size() == 1:
        return learner, learner, optimizer
    return learner, DistributedDataParallel(learner, gradient_as_bucket_view=True), optimizer


def _worker(rank: int, world: int, port: int, case: Case, folder: str, repeats: int) -> None:
    """Run epochs of all ways in turn; rank 0 writes the rates."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    plan = load(Recipe, yaml.safe_load(_RECIPE), [f"stages.{_STAGE}.batch={case.batch}"])
    index = FaceStore.open(f"{folder}/store")
    ways = {
        "aupipe": _aupipe(case, plan, index, rank, world),
        "plain": _plain(case, plan, index, Path(folder), processes=0),
        "plain_loader": _plain(case, plan, index, Path(folder), processes=1),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(1 + repeats):
        for name, run in ways.items():
            distributed.barrier()
            start = time.perf_counter()
            samples = run(epoch)
            distributed.barrier()
            rates[name].append(samples / (time.perf_counter() - start))
    if rank == 0:
        medians = {name: statistics.median(each[1:]) for name, each in rates.items()}
        result: dict[str, float] = {f"{name}_per_s": round(rate, 1) for name, rate in medians.items()}
        result["ratio"] = round(medians["aupipe"] / max(medians["plain"], medians["plain_loader"]), 2)
        (Path(folder) / "result.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


def _aupipe(case: Case, plan: Recipe, index: FaceStore, rank: int, world: int) -> Callable[[int], int]:
    _, model, optimizer = _learner(case, plan, index)
    trainer = engine.Trainer(
        recipe=plan, stage=_STAGE, data=task_data.task_data(plan, _STAGE, index), model=model, optimizer=optimizer,
        rank=rank, world=world, device=torch.device("cpu"),
    )  # fmt: skip

    def run(epoch: int) -> int:
        for _ in trainer.train_steps(epoch, pause=lambda: _STEPS_PER_PAUSE):
            pass
        return trainer.steps_per_epoch * case.batch

    return run


def _plain(case: Case, plan: Recipe, index: FaceStore, folder: Path, *, processes: int) -> Callable[[int], int]:
    """Return the loop that anybody would write: a DataLoader over files, forward, backward, step."""
    learner, model, optimizer = _learner(case, plan, index)
    files = _Files(folder)
    sampler: DistributedSampler = DistributedSampler(files)
    loader: DataLoader = DataLoader(
        files, batch_size=case.batch // distributed.get_world_size(), sampler=sampler, drop_last=True,
        num_workers=processes, persistent_workers=processes > 0,
    )  # fmt: skip
    for group in optimizer.param_groups:
        group["lr"] = 1e-3

    def run(epoch: int) -> int:
        sampler.set_epoch(epoch)
        learner.train()
        for crops, targets in loader:
            optimizer.zero_grad()
            frames = plan.input.prepare(crops)
            loss = model("au", SequenceBatch.untimed(frames[:, None]), targets[:, None].float())
            loss.backward()
            optimizer.step()
        return len(loader) * case.batch

    return run
