"""The time of an epoch from stored embeddings, against an epoch that decodes and encodes every crop."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch import nn

from aupipe.benchmarks.noise_store import generate
from aupipe.data import embedding_store
from aupipe.data.batches import EmbeddingFolders
from aupipe.data.sampler import Task
from aupipe.errors import AupipeError, ConfigError
from aupipe.facestore.read import FaceStore
from aupipe.models.interfaces import FrameEncoder
from aupipe.storage import Storage
from aupipe.training import recipe, task_data
from aupipe.training import trainer as engine
from aupipe.training.learner import build_learner
from aupipe.training.recipe import Recipe

CPU = torch.device("cpu")

_PROMPTS = (
    "stages.prompts.augment={flip: false, gain: 0, contrast: 0, saturation: 0}",
    "stages.prompts.tasks.au.data.subset=null", "stages.prompts.tasks.au.data.held_out=0",
    "stages.prompts.encode_once=null",
)  # fmt: skip
_TEMPORAL = (
    *_PROMPTS, "stages.prompts.model={cut: spatial, prompts: {spatial: false}}",
    "stages.prompts.optimizer.groups=[{parameters: [head.temporal.layers.prompts], "
    "schedule: {kind: cosine, lr: 0.5, warmup_epochs: 2}, weight_decay: 1.0e-4}]",
)  # fmt: skip
_SEQUENCE = (
    "stages.sequence.tasks.expr=null",
    "stages.sequence.model.outputs=[au]",
    "stages.sequence.tasks.au.data.held_out=0",
)


@dataclass(frozen=True)
class Case:
    """One stage of a recipe on generated videos, few enough that an epoch that encodes takes seconds."""

    recipe: str
    stage: str
    quick: bool
    videos: int
    frames: int  # frames of each video
    batch: int
    settings: tuple[str, ...]


CASES: dict[str, Case] = {
    "temporal_prompts_quick": Case("prompt_tuning", "prompts", True, 16, 32, 8, _TEMPORAL),
    "all_prompts_quick": Case("prompt_tuning", "prompts", True, 16, 32, 8, _PROMPTS),
    "sequence_quick": Case("multimodal", "sequence", True, 16, 32, 8, _SEQUENCE),
    "temporal_prompts": Case("prompt_tuning", "prompts", False, 2, 256, 1, _TEMPORAL),
    "all_prompts": Case("prompt_tuning", "prompts", False, 2, 256, 1, _PROMPTS),
    # 2 clips of 30 frames, 10 frames apart
    "sequence_iresnet100": Case("multimodal", "sequence", False, 1, 40, 2, _SEQUENCE),
}


def measure(names: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    """Measure the seconds of a training epoch in both ways, on one thread, as medians of alternating epochs.

    The weights are random because times do not depend on them. The first epoch of each way is not counted.

    Args:
        names: keys of `CASES`; none: all.
        repeats: counted epochs of each way, at least 1.

    Yields:
        For each case: `on_the_fly_s`, `encode_once_s` and their `ratio`; `cpu_ratio`, the ratio of processor times,
        which depends less on other work on the machine; `encoding_s`, which is spent once; and `ratio_of_stage`, which
        includes it, over the epochs of the recipe.

    Raises:
        ConfigError: a name is no case.
        AupipeError: the losses of the two ways differ.
    """
    if unknown := sorted(set(names) - set(CASES)):
        raise ConfigError(f"--case {unknown[0]}: no such case ({', '.join(CASES)})")
    if repeats < 1:
        raise ConfigError(f"--repeats {repeats}: must be at least 1")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            yield {"case": name} | _measured(CASES[name], Storage(folder), repeats)


def _measured(case: Case, folder: Storage, repeats: int) -> dict[str, Any]:
    overrides = [*case.settings, f"stages.{case.stage}.batch={case.batch}"]
    plan = recipe.read(case.recipe, quick=case.quick, overrides=overrides)
    index = generate(Storage(folder.path("store")), videos=case.videos, frames=case.frames, key=str(case))
    fly = _trainer(plan, case.stage, index, {})
    started = time.perf_counter()
    embeddings = _encode(fly, index, Storage(folder.path("embeddings")))
    encoding_s = time.perf_counter() - started
    once = _trainer(plan, case.stage, index, embeddings)
    wall: dict[str, list[float]] = {"fly": [], "once": []}
    cpu: dict[str, list[float]] = {"fly": [], "once": []}
    for epoch in range(1 + repeats):
        losses = {}
        for way, trainer in (("fly", fly), ("once", once)):
            start, cpu_start = time.perf_counter(), time.process_time()
            losses[way] = trainer.train_epoch(epoch)
            wall[way].append(time.perf_counter() - start)
            cpu[way].append(time.process_time() - cpu_start)
        if losses["fly"] != losses["once"]:
            raise AupipeError(f"epoch {epoch}: the loss is {losses['fly']} on the fly, {losses['once']} encoded once")
    fly_s, once_s = (statistics.median(wall[way][1:]) for way in ("fly", "once"))
    fly_cpu, once_cpu = (statistics.median(cpu[way][1:]) for way in ("fly", "once"))
    epochs = plan.stages[case.stage].epochs
    return {
        "clips": sum(fly.steps.values()) * case.batch, "clip_frames": fly.learner.head.window_length,
        "repeats": repeats, "on_the_fly_s": round(fly_s, 3), "encode_once_s": round(once_s, 3),
        "ratio": round(fly_s / once_s, 1), "cpu_ratio": round(fly_cpu / once_cpu, 1),
        "encoding_s": round(encoding_s, 3), "epochs": epochs,
        "ratio_of_stage": round(epochs * fly_s / (encoding_s + epochs * once_s), 1), "loss": losses["once"],
    }  # fmt: skip


def _trainer(plan: Recipe, stage: str, index: FaceStore, embeddings: Mapping[Task, EmbeddingFolders]) -> engine.Trainer:
    data = task_data.task_data(plan, stage, index)
    learner, optimizer = build_learner(plan, stage, data, None)
    _set_batch_norm(learner.encoder, plan.input.size_px)
    return engine.Trainer(
        recipe=plan, stage=stage, data=data, model=learner.to(memory_format=torch.channels_last), optimizer=optimizer,
        rank=0, world=1, device=CPU, embeddings=embeddings,
    )  # fmt: skip


def _set_batch_norm(encoder: FrameEncoder, size_px: int) -> None:
    """Set batch-norm statistics that match the random weights, because values overflow in a deep network otherwise."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # use the statistics of this batch only
    with torch.no_grad():
        encoder.train()(torch.randn(8, 3, size_px, size_px, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _encode(trainer: engine.Trainer, index: FaceStore, out: Storage) -> dict[Task, EmbeddingFolders]:
    """Write the embeddings of the training rows, as the Ray job does."""
    encoder = trainer.learner.encoder
    plain = embedding_store.plain_encoding(encoder, trainer.inputs, index)
    folder = Storage(out.path(plain.key))
    for part in (each.name for each in index.card.shards if each.split == "train"):
        folder.write(part, embedding_store.encode_part(encoder, plain, index, part, CPU))
    embedding_store.write_card(folder, plain)
    return dict.fromkeys(trainer.loaders, EmbeddingFolders((folder.root,), ()))
