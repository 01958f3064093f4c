"""One training stage on one worker: train an epoch, validate. Uses torch.distributed, not Ray."""

from __future__ import annotations

import contextlib
import itertools
import math
import resource
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from aupipe.arrays import Ints
from aupipe.data import sampler
from aupipe.data.batches import EmbeddingFolders
from aupipe.data.loaded import read_ahead
from aupipe.data.sampler import Task
from aupipe.data.samples import Samples
from aupipe.errors import AupipeError
from aupipe.evaluation import metrics
from aupipe.models.interfaces import SequenceBatch
from aupipe.models.sliding_window import outputs as output_sizes
from aupipe.training import optim
from aupipe.training.learner import unwrap
from aupipe.training.recipe import Recipe, Stage
from aupipe.training.task_data import TaskData
from aupipe.training.task_loader import Place, TaskLoader

_READING_THREADS = 4  # beside a GPU, which takes more crops per second than one thread decodes


class _Part(NamedTuple):
    """A part of a batch.

    Attributes:
        batch: returns the clips on the device, augmented, and their targets.
    """

    place: Place
    batch: Callable[[], tuple[SequenceBatch, Tensor]]


class Trainer:
    """Training of a stage's tasks, epoch by epoch; every rank creates one."""

    def __init__(
        self, *, recipe: Recipe, stage: str, data: Mapping[Task, TaskData], model: nn.Module,
        optimizer: torch.optim.Optimizer, rank: int, world: int, device: torch.device,
        embeddings: Mapping[Task, EmbeddingFolders] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """
        Args:
            model: the learner, or a DDP wrapper of it.
            embeddings: stored embeddings, for tasks whose crops are already encoded.
        """
        self.settings: Stage = recipe.stages[stage]
        self.seed = sampler.seed_of(recipe.seed, stage)
        self.inputs, self.overlap = recipe.input, recipe.overlap
        self.model, self.optimizer = model, optimizer
        self.learner = unwrap(model)
        self.rank, self.world, self.device = rank, world, device
        self.loaders = {
            task: TaskLoader(
                task, data=data[task], stage=self.settings, seed=self.seed, encoder=self.learner.encoder,
                head=self.learner.head, inputs=recipe.input, device=device, folders=embeddings.get(task),
            )
            for task in self.settings.tasks.named
        }  # fmt: skip
        self.steps = {task: loader.steps for task, loader in self.loaders.items()}
        self.steps_per_epoch = len(sampler.task_schedule(self.steps, self.settings.alternate, epoch=0))

    def train_epoch(self, epoch: int) -> float:
        """Train a whole epoch; return its mean loss over all ranks."""
        *_, (_, total) = self.train_steps(epoch)
        return total / self.steps_per_epoch

    def train_steps(
        self, epoch: int, done: int = 0, total: float = 0.0, pause: Callable[[], int] = lambda: 1
    ) -> Iterator[tuple[int, float]]:
        """Train the rest of an epoch; yield the number of steps done and the sum of their losses at every pause.

        Losses are read only at pauses, because reading one waits for the GPU and for the other ranks.

        Args:
            done, total: the values yielded last, to resume an interrupted epoch.
            pause: returns the number of steps up to the next pause, the same on all ranks. The last step is one, too.

        Raises:
            AupipeError: the loss is not finite.
        """
        optim.train_mode(self.model)
        schedule = sampler.task_schedule(self.steps, self.settings.alternate, epoch=epoch)
        with contextlib.closing(self._read_ahead(schedule[done:])) as parts:
            losses: list[Tensor] = []
            steps = pause()
            for number, (task, _, _) in enumerate(schedule[done:], start=done):
                losses.append(self._step(task, parts, epoch * self.steps_per_epoch + number))
                if len(losses) < steps and number + 1 < len(schedule):
                    continue
                for loss in _gathered(torch.stack(losses)).sum(dim=0).tolist():
                    total += loss / self.world
                losses.clear()
                if not math.isfinite(total):
                    rates = ", ".join(f"{group['lr']:.2g}" for group in self.optimizer.param_groups)
                    raise AupipeError(
                        f"epoch {epoch + 1}: the loss is {total} at learning rates {rates}; use lower ones"
                    )
                yield number + 1, total
                steps = pause()

    def _read_ahead(self, schedule: Sequence[tuple[Task, int, int]]) -> Generator[_Part, None, None]:
        """Yield the parts of this rank's batches, which threads read before the step that needs them.

        On CPUs these threads also convert and augment crops. A GPU does that itself.
        """
        on_gpu = self.device.type == "cuda"

        def places() -> Iterator[tuple[Task, Place]]:
            share = sampler.local_batch_size(self.settings.batch, rank=self.rank, world=self.world)
            edges = [share * part // self.settings.accumulate for part in range(self.settings.accumulate + 1)]
            for task, pass_index, step in schedule:
                for part in itertools.pairwise(edges):
                    place = Place(pass_index, step, self.rank, self.world, part)
                    self.loaders[task].prefetch(place)
                    yield task, place

        def read(at: tuple[Task, Place]) -> _Part:
            task, place = at
            stored = self.loaders[task].read(place)
            if on_gpu:
                return _Part(place, lambda: self.loaders[task].batch(stored))
            batch = self.loaders[task].batch(stored)
            return _Part(place, lambda: batch)

        threads = _READING_THREADS if on_gpu else 1
        return read_ahead(read, places(), threads=threads, ahead=2 * threads)

    def _step(self, task: Task, parts: Iterator[_Part], number: int) -> Tensor:
        """Run global step `number` of the stage on the next parts; return its loss, float64 on the device."""
        self._set_learning_rates(number)
        self.optimizer.zero_grad(set_to_none=True)  # with 0 instead, momentum would move the heads of other tasks
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for left in reversed(range(self.settings.accumulate)):
            # Gradients are summed over ranks once, with the last part.
            sync: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            if isinstance(self.model, DistributedDataParallel) and left:
                sync = self.model.no_sync()
            part = next(parts)
            first, last = part.place.part
            with sync:
                # DDP averages over ranks, and their numbers of clips may differ by one.
                loss = self._loss(task, part) * ((last - first) * self.world / self.settings.batch)
                loss.backward()
            total += loss.detach()
        if self.settings.optimizer.clip_norm:
            # The class centers of an identity loss are not clipped, as in InsightFace's code.
            network = (*self.learner.encoder.parameters(), *self.learner.head.parameters())
            nn.utils.clip_grad_norm_(network, self.settings.optimizer.clip_norm)
        self.optimizer.step()
        return total

    def _loss(self, task: Task, part: _Part) -> Tensor:
        """Return the loss of a part of this rank's share of a batch."""
        # Dropout is seeded by the position, as augmentation is, so resuming here needs no generator state.
        at = part.place
        torch.manual_seed(sampler.seed_of("step", self.seed, task, at.pass_index, at.step, self.rank, *at.part))
        batch, targets = part.batch()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss: Tensor = self.model(task, batch, targets)
        return loss

    def _set_learning_rates(self, step: int) -> None:
        groups = self.settings.optimizer.groups
        for group in self.optimizer.param_groups:
            group["lr"] = optim.learning_rate(
                groups[group["number"]].schedule, step=step, steps_per_epoch=self.steps_per_epoch,
                epochs=self.settings.epochs, batch=self.settings.batch,
            )  # fmt: skip

    def validate(self) -> dict[str, Any]:
        """Return the scores at threshold 0.5 of every task with rows to score; each rank predicts its part of them."""
        _broadcast_buffers(self.learner)
        figures: dict[str, Any] = {}
        for task, loader in self.loaders.items():
            if loader.data.eval is not None:
                figures |= self._validated(task, loader.data.eval)
        return figures

    def _validated(self, task: Task, samples: Samples) -> dict[str, Any]:
        count = len(samples.tracks.videos)
        first, last = (count * rank // self.world for rank in (self.rank, self.rank + 1))
        own = samples.tracks.part(first, last)
        targets = samples.targets[samples.tracks.offsets[first] : samples.tracks.offsets[last]]
        outputs = self.loaders[task].predict(samples, own, self.overlap)
        if outputs:
            found = outputs[task]
        else:  # with more ranks than tracks, some ranks have none
            found = np.zeros((0, output_sizes(self.learner.head, self.learner.encoder.embed_dim)[task]))
        if task == "au":
            counts = self._summed(metrics.confusion(targets, found >= 0.5))
            floor = float(metrics.macro_f1(metrics.all_ones(counts)))
            f1 = float(metrics.macro_f1(counts))
            return {"macro_f1": f1, "floor": floor, "abaw2": metrics.abaw2_au(f1, float(metrics.acc_elem(counts)))}
        table = self._summed(metrics.class_confusion(targets, found.argmax(axis=1), found.shape[1]))
        f1, accuracy = metrics.class_scores(table)
        return {
            "expr_macro_f1": f1,
            "expr_accuracy": accuracy,
            "expr_abaw2": metrics.abaw2_expression(f1, accuracy),
            "expr_majority": metrics.majority(table),
        }

    def peak_mb(self) -> float:
        """Return the peak memory of this rank in MiB: of its GPU, or resident on a CPU, with Python and Ray."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def _summed(self, counts: Ints) -> Ints:
        return _sum_over_ranks(torch.from_numpy(counts), self.device).cpu().numpy()


def ddp_options(*, unused: bool, device: torch.device, world: int) -> dict[str, Any]:
    """Return the options with which DDP wraps a learner.

    DDP rearranges the gradients after its first step, unless it looks for unused parameters. A sum over three or more
    ranks depends on their arrangement, so a run that resumes on CPUs would end in other bits.

    Args:
        unused: whether a step may leave out parameters.
        world: number of ranks.
    """
    searches = unused or (device.type == "cpu" and world > 2)
    return {"find_unused_parameters": searches, "gradient_as_bucket_view": True}


def score(figures: Mapping[str, Any], loss: float) -> float:
    """Return the score that selects the best epoch: the mean macro F1 of the tasks, or without scores −loss."""
    found = [figures[key] for key in ("macro_f1", "expr_macro_f1") if key in figures]
    return sum(found) / len(found) if found else -loss


def _sum_over_ranks(values: Tensor, device: torch.device) -> Tensor:
    if distributed.is_initialized():
        values = values.to(device)
        distributed.all_reduce(values)
    return values


def _gathered(values: Tensor) -> Tensor:
    """Return the values (N,) of every rank as (world, N), on the CPU."""
    if not distributed.is_initialized():
        return values[None].cpu()
    every = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, values)
    return torch.stack(every).cpu()


def broadcast_numbers(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Return the numbers of rank 0 on every rank."""
    values = torch.tensor(numbers, device=device)
    if distributed.is_initialized():
        distributed.broadcast(values, 0)
    return values.tolist()


def _broadcast_buffers(system: nn.Module) -> None:
    """Copy the batch-norm statistics of rank 0, which checkpoints contain, to all ranks (as DDP does before a step)."""
    if distributed.is_initialized():
        for buffer in system.buffers():
            distributed.broadcast(buffer, 0)
