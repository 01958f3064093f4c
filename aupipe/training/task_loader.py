"""The batches of one task of a stage. Each depends only on its place in the plan, so training resumes at any step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aupipe import facs
from aupipe.arrays import Floats, Ints
from aupipe.data import sampler
from aupipe.data.batches import EmbeddingFolders, Source, open_source
from aupipe.data.clips import Clips
from aupipe.data.readers import LogMelCache
from aupipe.data.sampler import Task
from aupipe.data.samples import Samples, Tracks
from aupipe.errors import DatasetError
from aupipe.evaluation.inference import predict_tracks
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder, SequenceBatch, SequenceHead
from aupipe.training.recipe import Stage
from aupipe.training.task_data import TaskData


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
        self._plans: dict[int, tuple[Clips, Ints]] = {}
        self.steps = steps_of(data.train, task, stage)

    def _open(self, samples: Samples, folders: Sequence[str], keep_groups: int) -> Source:
        return open_source(
            self.data.index, samples.tracks.split, folders, keep_groups=keep_groups, encoder=self._encoder,
            inputs=self._inputs, config=self._stage.augment, device=self._device,
        )  # fmt: skip

    def batch(
        self, pass_index: int, step: int, *, rank: int, world: int, part: tuple[int, int]
    ) -> tuple[SequenceBatch, Tensor]:
        """Return clips of a batch, augmented, and their targets (B, S, 12) for au, otherwise (B, S); −1 unknown.

        Args:
            pass_index: number of the pass through the training samples.
            step: within the pass.
            rank, world: this rank, of how many.
            part: the first clip of the rank's share of the batch, and the clip after the last.
        """
        generator = torch.Generator().manual_seed(
            sampler.seed_of("augment", self._seed, self._task, pass_index, step, rank, *part)
        )
        cut, order = self._plan(pass_index)
        picked = sampler.rank_rows(order, step=step, batch=self._stage.batch, rank=rank, world=world)
        chosen = cut.take(picked[slice(*part)])
        samples = self.data.train
        labels = samples.train_targets[chosen.rows]
        labels[~chosen.valid] = facs.UNKNOWN
        targets = torch.from_numpy(labels).to(self._device, torch.float32 if self._task == "au" else torch.int64)
        rows, time_s = samples.tracks.rows[chosen.rows], samples.tracks.time_s[chosen.rows]
        features, targets = self._source.clips(rows, targets, pass_index=pass_index, generator=generator)
        audio: tuple[Tensor, ...] = ()
        if self._head.uses_audio:
            audio = self._audio.clips(samples.tracks.videos_of(chosen.rows[:, 0]), time_s)
        batch = SequenceBatch(features, torch.from_numpy(chosen.valid), torch.from_numpy(time_s), *audio)
        return batch.to(self._device), targets

    def predict(self, samples: Samples, tracks: Tracks, overlap: float) -> dict[str, Floats]:
        """Return the head's probabilities for `tracks` of `samples`, as `predict_tracks`. No clip is augmented."""
        features = self._open(samples, self._folders.eval, keep_groups=2).embeddings(tracks.rows)
        return predict_tracks(self._head, features, self._audio, tracks, overlap)

    def _plan(self, pass_index: int) -> tuple[Clips, Ints]:
        """Return the clips of a pass, and their order."""
        if pass_index not in self._plans:
            samples = self.data.train
            cut = samples.clips(self._config, seed=self._seed, epoch=pass_index)
            groups = self.data.index.row_groups(samples.tracks.split).of(samples.tracks.rows[cut.rows[:, 0]])
            order = sampler.epoch_order(groups, seed=self._seed, epoch=pass_index, window=self._config.window_groups)
            self._plans = {pass_index: (cut, order)}
        return self._plans[pass_index]


def steps_of(samples: Samples, task: Task, stage: Stage) -> int:
    """Return the optimizer steps of a pass.

    Raises:
        DatasetError: there are fewer clips than one batch.
    """
    clips = len(samples.clips(stage.tasks.named[task].data, seed=0, epoch=0))
    if clips < stage.batch:
        raise DatasetError(f"{clips} samples are fewer than one batch of {stage.batch}; lower the stage's batch")
    return sampler.steps(clips, stage.batch)
