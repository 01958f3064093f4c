"""What encoding once saves: an epoch from stored embeddings against one that decodes and encodes every crop."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from aupipe import facs
from aupipe.data import embedding_store
from aupipe.data.batches import EmbeddingFolders
from aupipe.data.sampler import Task
from aupipe.errors import AupipeError, ConfigError
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.facestore import jpeg, write
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import StoreHeader
from aupipe.media.audio import AudioBlock
from aupipe.models.interfaces import FrameEncoder
from aupipe.storage import Storage
from aupipe.training import recipe, task_data
from aupipe.training import trainer as engine
from aupipe.training.learner import build_learner
from aupipe.training.recipe import Recipe

CPU = torch.device("cpu")
_RATE_HZ, _FRAMES_PER_S = 16_000, 30
_DETAIL = 20  # pixels of noise a side, enlarged: makes a JPEG of about the size of a face's

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
    """A stage of a recipe on generated videos, few enough that an epoch that encodes takes seconds."""

    recipe: str
    stage: str
    quick: bool
    videos: int
    frames: int  # of each
    batch: int
    settings: tuple[str, ...]


CASES: dict[str, Case] = {
    "temporal_prompts_quick": Case("prompt_tuning", "prompts", True, 16, 32, 8, _TEMPORAL),
    "all_prompts_quick": Case("prompt_tuning", "prompts", True, 16, 32, 8, _PROMPTS),
    "sequence_quick": Case("multimodal", "sequence", True, 16, 32, 8, _SEQUENCE),
    "temporal_prompts": Case("prompt_tuning", "prompts", False, 2, 256, 1, _TEMPORAL),
    "all_prompts": Case("prompt_tuning", "prompts", False, 2, 256, 1, _PROMPTS),
    "sequence_iresnet100": Case("multimodal", "sequence", False, 1, 40, 2, _SEQUENCE),  # 2 clips of 30, 10 apart
}


def measure(names: Sequence[str], repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds of an epoch of training both ways, on one thread: medians of epochs that take turns.

    The weights are random: what is measured does not depend on them. Of each way, the first epoch counts nowhere.

    Args:
        names: of `CASES`; none: all.
        repeats: epochs of each way that count, at least 1.

    Yields:
        For each case: `on_the_fly_s`, `encode_once_s` and their `ratio`; `cpu_ratio`, the same of processor time, which
        other work on the machine changes less; `encoding_s`, spent once; `ratio_of_stage`, that included, over the
        epochs of the recipe.

    Raises:
        ConfigError: there is no such case.
        AupipeError: the two ways have different losses.
    """
    if unknown := sorted(set(names) - set(CASES)):
        raise ConfigError(f"--case {unknown[0]}: there are {', '.join(CASES)}")
    if repeats < 1:
        raise ConfigError(f"--repeats {repeats}: at least 1 is needed")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            yield {"case": name} | _measured(CASES[name], Storage(folder), repeats)


def _measured(case: Case, folder: Storage, repeats: int) -> dict[str, Any]:
    chosen = [*case.settings, f"stages.{case.stage}.batch={case.batch}"]
    plan = recipe.read(case.recipe, quick=case.quick, overrides=chosen)
    index = _generate(Storage(folder.path("store")), case)
    fly = _trainer(plan, case.stage, index, {})
    begun = time.perf_counter()
    places = _encode(fly, index, Storage(folder.path("embeddings")))
    encoding_s = time.perf_counter() - begun
    once = _trainer(plan, case.stage, index, places)
    wall: dict[str, list[float]] = {"fly": [], "once": []}
    cpu: dict[str, list[float]] = {"fly": [], "once": []}
    for epoch in range(1 + repeats):
        losses = {}
        for way, trainer in (("fly", fly), ("once", once)):
            start, worked = time.perf_counter(), time.process_time()
            losses[way] = trainer.train_epoch(epoch)
            wall[way].append(time.perf_counter() - start)
            cpu[way].append(time.process_time() - worked)
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


def _trainer(plan: Recipe, stage: str, index: FaceStore, places: Mapping[Task, EmbeddingFolders]) -> engine.Trainer:
    data = task_data.task_data(plan, stage, index)
    learner, optimizer = build_learner(plan, stage, data, None)
    _settle(learner.encoder, plan.input.size_px)
    return engine.Trainer(
        recipe=plan, stage=stage, data=data, model=learner.to(memory_format=torch.channels_last), optimizer=optimizer,
        rank=0, world=1, device=CPU, embeddings=places,
    )  # fmt: skip


def _settle(encoder: FrameEncoder, size_px: int) -> None:
    """Give random weights batch-norm statistics that go with them: without, a deep network's values grow beyond all."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of this batch alone
    with torch.no_grad():
        encoder.train()(torch.randn(8, 3, size_px, size_px, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _encode(trainer: engine.Trainer, index: FaceStore, out: Storage) -> dict[Task, EmbeddingFolders]:
    """What the Ray job leaves of the rows to learn from."""
    encoder = trainer.learner.encoder
    plain = embedding_store.plain_encoding(encoder, trainer.inputs, index)
    folder = Storage(out.path(plain.key))
    for part in (each.name for each in index.card.parts if each.split == "train"):
        folder.write(part, embedding_store.encode_part(encoder, plain, index, part, CPU))
    embedding_store.write_card(folder, plain)
    return dict.fromkeys(trainer.tasks, EmbeddingFolders((folder.root,), ()))


def _generate(storage: Storage, case: Case) -> FaceStore:
    """A store of noise with random labels and sound, one video of it to score."""
    rng = np.random.default_rng(0)
    names = []
    for split, videos in (("train", case.videos), ("validation", 1)):
        part = write.ShardWriter()
        for video in range(videos):
            frames, name = case.frames, f"{split}{video}"
            part.add(
                write.rows(
                    video_id=name, frames=np.arange(1, frames + 1), images=[_crop(rng) for _ in range(frames)],
                    au=rng.integers(0, 2, (frames, len(facs.AUS))), expression=rng.integers(0, 7, frames),
                    source="noise",
                )
            )  # fmt: skip
            samples = rng.integers(-3000, 3000, (1, frames * _RATE_HZ // _FRAMES_PER_S), dtype=np.int16)
            storage.write(write.audio_name(name), write.audio_file(name, [AudioBlock(0.0, _RATE_HZ, samples)]))
        names.append(write.part_name(split, 0, str(case)))
        storage.write(names[-1], part.finish())
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    write.finish(
        storage,
        StoreHeader(
            edition="noise", source="noise", license="", template=template, template_source="arcface",
            n_expressions=7, settings={},
        ),
        names,
    )  # fmt: skip
    return FaceStore.open(storage.root)


def _crop(rng: np.random.Generator) -> bytes:
    noise = rng.integers(0, 256, (_DETAIL, _DETAIL, 3), dtype=np.uint8)
    return jpeg.encode(cv2.resize(noise, (CROP_SIZE_PX, CROP_SIZE_PX)))
