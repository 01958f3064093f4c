"""One training stage on one worker: build, learn an epoch, validate. Knows torch.distributed, not Ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.facestore.folds import held_out, video_positives
from aupipe.facestore.read import StoreIndex
from aupipe.learning import losses, metrics, optim, sampling, splits
from aupipe.learning.augment import augment
from aupipe.learning.crops import CropReader
from aupipe.learning.initialise import initialise
from aupipe.learning.metrics import Bools, Floats, Ints, Labels
from aupipe.learning.predictions import au_labels
from aupipe.learning.recipe import DataConfig, Recipe, Stage
from aupipe.models.build import build
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System

PREDICT_BATCH = 64  # fixed: a row's result must not depend on what else is predicted


@dataclass(frozen=True)
class Selection:
    """Rows to learn from or to score."""

    pool: str  # the store's split in which they are numbered
    rows: Ints  # (N,) numbers of the rows, ascending
    labels: Labels  # (N, 12)
    videos: tuple[str, ...]  # whose rows they are
    held_out_videos: tuple[str, ...] = ()

    @property
    def positive_rates(self) -> Floats:
        """(12,) of the known labels; an AU without a positive counts as having one."""
        positives = np.maximum((self.labels == 1).sum(axis=0), 1)
        return positives / np.maximum((self.labels != facs.UNKNOWN).sum(axis=0), 1)


def training_rows(index: StoreIndex, data: DataConfig, split: str = splits.OFFICIAL) -> Selection:
    """The rows a stage learns from: labelled, every n-th frame, of the split's part to learn but for held-out videos.

    Raises:
        DatasetError: there are none.
    """
    part = splits.to_learn(index, split)
    table = index.labels(part.pool, ("video_id", "frame", "au"))
    inside = part.mask(table["video_id"])
    apart = held_out(video_positives(table.filter(inside)), data.held_out)
    keep = inside & ~splits.Part(part.pool, apart).mask(table["video_id"])
    keep &= sampling.every_nth(table["frame"].to_numpy().astype(np.int64), data.every_n)
    return _selection(index, part.pool, table, keep, tuple(sorted(apart)))


def labelled_rows(index: StoreIndex, split: str) -> Selection:
    """The labelled rows of the split's part to score.

    Raises:
        DatasetError: there are none.
    """
    part = splits.to_score(index, split)
    table = index.labels(part.pool, ("video_id", "au"))
    return _selection(index, part.pool, table, part.mask(table["video_id"]))


def _selection(
    index: StoreIndex, pool: str, table: pa.Table, keep: Bools, held_out_videos: tuple[str, ...] = ()
) -> Selection:
    labels = au_labels(table)
    rows = np.flatnonzero(keep & (labels != facs.UNKNOWN).any(axis=1))
    if not len(rows):
        raise DatasetError(f"{index.storage.root}: of split {pool!r} no labelled row is left to learn from or to score")
    videos = tuple(sorted(pc.unique(table["video_id"].take(rows)).to_pylist()))
    return Selection(pool, rows, labels[rows], videos, held_out_videos)


def build_system(recipe: Recipe, stage: str, init: str) -> System:
    """The system as the stage starts it, from the weights that `init` names."""
    torch.manual_seed(sampling.seed_of(recipe.seed, stage, "weights"))
    system = build(recipe.model, recipe.input)
    initialise(system, init, setting=f"stages.{stage}.init")
    return system


def unwrap(model: nn.Module) -> System:
    """The system inside DDP's wrapper, or the model itself."""
    system = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(system, System)
    return system


class Trainer:
    """Learns a stage's rows epoch by epoch; every rank makes one."""

    def __init__(
        self, *, recipe: Recipe, stage: str, index: StoreIndex, model: nn.Module, optimiser: torch.optim.Optimizer,
        rank: int, world: int, device: torch.device, split: str = splits.OFFICIAL,
    ) -> None:  # fmt: skip
        """`model` is the system itself or a wrapper of it (DDP) with the same call."""
        self.settings: Stage = recipe.stages[stage]
        self.seed = sampling.seed_of(recipe.seed, stage)
        self.inputs = recipe.input
        self.model, self.optimiser = model, optimiser
        self.system = unwrap(model)
        self.rank, self.world, self.device = rank, world, device
        self.selection = training_rows(index, self.settings.data, split)
        self.reader = CropReader(index, self.selection.pool, keep_groups=2 * self.settings.data.window_groups)
        self.loss = losses.build(self.settings.loss, self.selection.positive_rates)
        self.steps_per_epoch = sampling.steps(len(self.selection.rows), self.settings.batch)
        if not self.steps_per_epoch:
            raise DatasetError(f"{len(self.selection.rows)} rows are less than one batch of {self.settings.batch}")

    def train_epoch(self, epoch: int, first_step: int = 0) -> float:
        """Learn from step `first_step` of an epoch to its end; mean loss of those steps over all ranks."""
        groups = self.reader.group_of(self.selection.rows)
        window = self.settings.data.window_groups
        order = sampling.epoch_order(groups, seed=self.seed, epoch=epoch, window=window)
        optim.train_mode(self.model)
        total = 0.0
        for step in range(first_step, self.steps_per_epoch):
            picked = sampling.rank_rows(order, step=step, batch=self.settings.batch, rank=self.rank, world=self.world)
            total += self._step(picked, epoch, step)
        mean = total / max(self.steps_per_epoch - first_step, 1)
        return float(_sum_over_ranks(torch.tensor([mean], dtype=torch.float64), self.device)) / self.world

    def _step(self, picked: Ints, epoch: int, step: int) -> float:
        # Dropout and augmentation depend on the position alone, so going on from here needs no generator state.
        torch.manual_seed(sampling.seed_of(self.seed, "step", epoch, step, self.rank))
        generator = torch.Generator().manual_seed(sampling.seed_of(self.seed, "augment", epoch, step, self.rank))
        crops = self.reader.read(self.selection.rows[picked]).to(self.device)
        targets = torch.from_numpy(self.selection.labels[picked]).to(self.device, torch.float32)
        images, targets = augment(self.inputs.scale(crops), targets, self.settings.augment, generator)
        self._set_learning_rates(epoch * self.steps_per_epoch + step)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(self.inputs.normalise(images))["au"]
        loss = self.loss(logits, targets)
        loss.backward()
        if self.settings.optimiser.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.optimiser.clip_norm)
        self.optimiser.step()
        return float(loss.detach())

    def _set_learning_rates(self, step: int) -> None:
        for group, config in zip(self.optimiser.param_groups, self.settings.optimiser.groups, strict=True):
            group["lr"] = optim.learning_rate(
                config.schedule, step=step, steps_per_epoch=self.steps_per_epoch, epochs=self.settings.epochs,
                batch=self.settings.batch,
            )  # fmt: skip

    def validate(self, reader: CropReader, selection: Selection) -> Ints:
        """Counts (12, 4) at threshold 0.5 over all ranks, each of which predicts its share of the rows."""
        share = np.array_split(np.arange(len(selection.rows)), self.world)[self.rank]
        _same_buffers(self.system)
        probabilities = predict(self.system, self.inputs, reader, selection.rows[share], self.device)
        counts = metrics.confusion(selection.labels[share], probabilities >= 0.5)
        return _sum_over_ranks(torch.from_numpy(counts), self.device).cpu().numpy()


@torch.no_grad()
def predict(system: System, inputs: InputSpec, reader: CropReader, rows: Ints, device: torch.device) -> Floats:
    """AU probabilities (N, 12) of rows (N,), in batches of a fixed size, in full precision; leaves eval mode on."""
    system.eval()
    result = np.empty((len(rows), len(facs.AUS)))
    for start in range(0, len(rows), PREDICT_BATCH):
        chosen = rows[start : start + PREDICT_BATCH]
        crops = reader.read(np.resize(chosen, PREDICT_BATCH))  # the last batch is filled up with its own rows
        # The sigmoid of the whole batch: at the end of an odd length, vector code gives other last bits.
        probabilities = system(inputs.prepare(crops.to(device)))["au"].sigmoid()[: len(chosen)]
        result[start : start + PREDICT_BATCH] = probabilities.cpu().numpy()
    return result


def _sum_over_ranks(values: Tensor, device: torch.device) -> Tensor:
    if distributed.is_initialized():
        values = values.to(device)
        distributed.all_reduce(values)
    return values


def _same_buffers(system: nn.Module) -> None:
    """Give every rank the batch-norm statistics of rank 0, as the checkpoint has them (DDP does so before a step)."""
    if distributed.is_initialized():
        for buffer in system.buffers():
            distributed.broadcast(buffer, 0)
