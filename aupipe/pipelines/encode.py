"""Encoding once, as a Ray Data job: parts of face stores in, files of embeddings out. What is there stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.data

from aupipe.config import Resources
from aupipe.data import embedding_store
from aupipe.data.batches import EmbeddingFolders
from aupipe.data.embedding_store import Encoding
from aupipe.data.sampler import Task
from aupipe.data.samples import Tracks
from aupipe.facestore.read import ALL, FaceStore
from aupipe.models.interfaces import FrameEncoder
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import device_of, gpus_per_worker, label_selector_for
from aupipe.storage import Storage
from aupipe.training.recipe import Recipe
from aupipe.training.task_data import TaskData


@dataclass
class _Order:
    """Parts of a store that are wanted in one encoding."""

    folder: Storage
    encoding: Encoding
    index: FaceStore
    parts: set[str] = field(default_factory=set)


def encode_stage(
    recipe: Recipe, stage: str, data: Mapping[Task, TaskData], encoder: FrameEncoder, out: str
) -> dict[Task, EmbeddingFolders]:
    """Encode what a stage reads, as far as it is not there yet; where it lies. Runs inside a session.

    Args:
        encoder: as the stage starts with it, frozen.
        out: folder or URI that holds embeddings, by their keys.
    """
    settings = recipe.stages[stage]
    if settings.encode_once is None:
        return {}
    orders: dict[str, _Order] = {}

    def folders(index: FaceStore, tracks: Tracks, encodings: Sequence[Encoding]) -> tuple[str, ...]:
        parts = embedding_store.parts_of(index, tracks.split, tracks.rows)
        for each in encodings:
            storage = Storage(Storage(out).path(each.key))
            orders.setdefault(each.key, _Order(storage, each, index)).parts.update(parts)
        return tuple(orders[each.key].folder.root for each in encodings)

    found = {}
    for task, rows in data.items():
        plain = embedding_store.plain_encoding(encoder, recipe.input, rows.index)
        copies = embedding_store.augmented_encodings(plain, settings.augment, settings.encode_once.copies)
        learnt = folders(rows.index, rows.train.tracks, copies or (plain,))
        found[task] = EmbeddingFolders(learnt, folders(rows.index, rows.eval.tracks, (plain,)) if rows.eval else ())
    _encode(list(orders.values()), encoder, recipe.resources)
    return found


def _encode(orders: Sequence[_Order], encoder: FrameEncoder, resources: Resources) -> None:
    """Make every file that is not there, then the cards. A file is whole or not there, and its bytes do not depend on
    the run, so the job can be killed at any time, and two may make the same.
    """
    todo = [
        {"order": number, "part": part}
        for number, order in enumerate(orders)
        for part in sorted(order.parts - set(order.folder.names()))
    ]
    if todo:
        sizes = {part.name: part.rows for order in orders for _, part in order.index.parts(ALL)}
        progress = Progress("encode", sum(sizes[str(each["part"])] for each in todo), "crops")
        gpus = gpus_per_worker(resources)
        slots = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1))
        done = ray.data.from_items(todo, override_num_blocks=len(todo)).map(
            _Encoder,
            fn_constructor_args=(ray.put(encoder), list(orders), device_of(resources)),
            compute=ray.data.ActorPoolStrategy(size=max(min(slots, len(todo)), 1)),
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
            label_selector=label_selector_for("infer" if gpus else "decode", resources),
        )
        for row in done.iter_rows():
            progress.add(sizes[row["part"]])
        progress.finish()
    for order in orders:
        embedding_store.write_card(order.folder, order.encoding)


class _Encoder:
    """Holds the encoder on one worker; a row is one file."""

    def __init__(self, encoder: ray.ObjectRef, orders: list[_Order], device: str) -> None:
        import cv2
        import torch

        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        self._device = torch.device(device)
        # As in training, so that both come to the same bits.
        self._encoder = ray.get(encoder).to(self._device).to(memory_format=torch.channels_last)
        self._orders = orders

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        order, part = self._orders[row["order"]], row["part"]
        data = embedding_store.encode_part(self._encoder, order.encoding, order.index, part, self._device)
        order.folder.write(part, data)
        return {"part": part}
