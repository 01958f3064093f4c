"""The batches of one task of a stage. Each depends only on its place in the plan, so training resumes at any step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupipe import facs
from aupipe.arrays import Floats, Ints
from aupipe.data import sampler
from aupipe.data.batches import EmbeddingFolders, Source, open_source
from aupipe.data.clips import Clips
from aupipe.data.loaded import Loaded
from aupipe.data.readers import LogMelCache
from aupipe.data.sampler import Task
from aupipe.data.samples import Samples, Tracks
from aupipe.errors import DatasetError
from aupipe.evaluation.inference import predict_tracks
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder, SequenceBatch, SequenceHead
from aupipe.training.recipe import Stage
from aupipe.training.task_data import TaskData


@dataclass(frozen=True)
class Place:
    """A part of a batch in the training plan.

    Attributes:
        pass_index: number of the pass through the training samples.
        step: within the pass.
        rank, world: this rank, of how many.
        part: the first clip of the rank's share of the batch, and the clip after the last.
    """

    pass_index: int
    step: int
    rank: int
    world: int
    part: tuple[int, int]


@dataclass(frozen=True)
class StoredClips:
    """The inputs of a part of a batch before augmentation, on the CPU.

    Attributes:
        batch: its features are what `Source.read` returned.
        targets: (B, S, 12) for au, otherwise (B, S); −1 unknown.
    """

    place: Place
    batch: SequenceBatch
    targets: Tensor


class _Plan(NamedTuple):
    """A pass through the training samples."""

    clips: Clips
    order: Ints  # of the clips
    half_window: int  # in steps


class TaskLoader:
    """Loader of a task's batches.

    Attributes:
        data: the task's samples.
        steps: optimizer steps of a pass through the training samples.
    """

    def __init__(
        self, task: Task, *, data: TaskData, stage: Stage, seed: int, encoder: FrameEncoder, head: SequenceHead,
        inputs: InputSpec, device: torch.device, folders: EmbeddingFolders | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            seed: of the stage.
            folders: stored embeddings of the samples; None: crops are read.

        Raises:
            DatasetError: there are fewer clips than one batch.
        """
        self.data, self._task, self._stage, self._seed = data, task, stage, seed
        self._encoder, self._head, self._inputs, self._device = encoder, head, inputs, device
        self._config = stage.tasks.named[task].data
        self._folders = folders or EmbeddingFolders((), ())
        self._source = self._open(data.train, self._folders.train, 2 * self._config.window_groups)
        self._audio = LogMelCache(data.index)
        self.steps = steps_of(data.train, task, stage)
        self._plans = Loaded(self._plan, 2)  # by pass; batches of the next pass are read before this one ends
        self._prefetched = (-1, 0)  # pass and step up to which loading was started

    def _open(self, samples: Samples, folders: Sequence[str], keep_groups: int) -> Source:
        return open_source(
            self.data.index, samples.tracks.split, folders, keep_groups=keep_groups, encoder=self._encoder,
            inputs=self._inputs, config=self._stage.augment, device=self._device,
        )  # fmt: skip

    def read(self, place: Place) -> StoredClips:
        """Return the stored inputs of a part of a batch, on the CPU. Threads may read at the same time."""
        clips = self._clips(place)
        samples = self.data.train
        rows, time_s = samples.tracks.rows[clips.rows], samples.tracks.time_s[clips.rows]
        labels = samples.train_targets[clips.rows]
        labels[~clips.valid] = facs.UNKNOWN
        audio: tuple[Tensor, ...] = ()
        if self._head.uses_audio:
            audio = self._audio.clips(samples.tracks.videos_of(clips.rows[:, 0]), time_s)
        stored = self._source.read(rows.ravel(), pass_index=place.pass_index)
        targets = torch.from_numpy(labels).to(torch.float32 if self._task == "au" else torch.int64)
        batch = SequenceBatch(stored, torch.from_numpy(clips.valid), torch.from_numpy(time_s), *audio)
        if self._device.type == "cuda":  # A copy from other memory would wait for the GPU.
            batch, targets = batch.pinned(), targets.pin_memory()
        return StoredClips(place, batch, targets)

    def prefetch(self, place: Place) -> None:
        """Start to load what this rank reads from `place` up to half a window of the plan ahead.

        The other half of the memory for two windows contains the groups that are in use.
        """
        pass_index, done = self._prefetched
        first = max(place.step, done) if pass_index == place.pass_index else place.step
        last = min(place.step + self._plans(place.pass_index).half_window, self.steps - 1)
        if first <= last:
            clips = [self._clips(replace(place, step=step)).rows.ravel() for step in range(first, last + 1)]
            rows = self.data.train.tracks.rows[np.concatenate(clips)]
            self._source.prefetch(rows, place.rank / place.world, pass_index=place.pass_index)
            self._prefetched = (place.pass_index, last + 1)

    def batch(self, stored: StoredClips) -> tuple[SequenceBatch, Tensor]:
        """Return clips on the device, augmented, and their targets (B, S, 12) for au, otherwise (B, S); −1 unknown."""
        place = stored.place
        generator = torch.Generator().manual_seed(
            sampler.seed_of(
                "augment", self._seed, self._task, place.pass_index, place.step, place.rank, *place.part
            )
        )  # fmt: skip
        batch, targets = stored.batch.to(self._device), stored.targets.to(self._device, non_blocking=True)
        features, targets = self._source.clips(batch.features, targets, generator=generator)
        return replace(batch, features=features), targets

    def predict(self, samples: Samples, tracks: Tracks, overlap: float) -> dict[str, Floats]:
        """Return the head's probabilities for `tracks` of `samples`, as `predict_tracks`. No clip is augmented."""
        features = self._open(samples, self._folders.eval, keep_groups=2).embeddings(tracks.rows)
        return predict_tracks(self._head, features, self._audio, tracks, overlap)

    def _plan(self, pass_index: int) -> _Plan:
        samples, window = self.data.train, self._config.window_groups
        cut = samples.clips(self._config, seed=self._seed, epoch=pass_index)
        groups = self.data.index.row_groups(samples.tracks.split).of(samples.tracks.rows[cut.rows[:, 0]])
        order = sampler.epoch_order(groups, seed=self._seed, epoch=pass_index, window=window)
        return _Plan(cut, order, self.steps * window // (2 * len(np.unique(groups))))

    def _clips(self, place: Place) -> Clips:
        """Return the clips of a part of a batch."""
        plan = self._plans(place.pass_index)
        picked = sampler.rank_rows(
            plan.order, step=place.step, batch=self._stage.batch, rank=place.rank, world=place.world
        )
        return plan.clips.take(picked[slice(*place.part)])


def steps_of(samples: Samples, task: Task, stage: Stage) -> int:
    """Return the optimizer steps of a pass.

    Raises:
        DatasetError: there are fewer clips than one batch.
    """
    clips = len(samples.clips(stage.tasks.named[task].data, seed=0, epoch=0))
    if clips < stage.batch:
        raise DatasetError(f"{clips} samples are fewer than one batch of {stage.batch}; lower the stage's batch")
    return sampler.steps(clips, stage.batch)
