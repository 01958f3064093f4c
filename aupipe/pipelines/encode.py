"""Encoding once, as a Ray Data job: shards of face stores in, files of embeddings out. Existing files are kept."""

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
from aupipe.pipelines.session import actor_pool, device_of, gpus_per_worker, label_selector_for, with_time_for
from aupipe.storage import Storage
from aupipe.training.recipe import Recipe
from aupipe.training.task_data import TaskData


@dataclass
class _Request:
    """The shards of a store to encode in one encoding."""

    folder: Storage
    encoding: Encoding
    index: FaceStore
    shards: set[str] = field(default_factory=set)


def encode_stage(
    recipe: Recipe, stage: str, data: Mapping[Task, TaskData], encoder: FrameEncoder, out: str
) -> dict[Task, EmbeddingFolders]:
    """Encode the rows that a stage reads, unless that is done, and return the folders. Runs inside a session.

    Args:
        encoder: the frozen encoder that the stage starts with.
        out: folder or URI of all embeddings; each encoding has a folder named by its key.
    """
    settings = recipe.stages[stage]
    if settings.encode_once is None:
        return {}
    requests: dict[str, _Request] = {}

    def folders(index: FaceStore, tracks: Tracks, encodings: Sequence[Encoding]) -> tuple[str, ...]:
        parts = embedding_store.parts_of(index, tracks.split, tracks.rows)
        for each in encodings:
            storage = Storage(Storage(out).path(each.key))
            requests.setdefault(each.key, _Request(storage, each, index)).shards.update(parts)
        return tuple(requests[each.key].folder.root for each in encodings)

    found = {}
    for task, rows in data.items():
        plain = embedding_store.plain_encoding(encoder, recipe.input, rows.index)
        copies = embedding_store.augmented_encodings(plain, settings.augment, settings.encode_once.copies)
        train = folders(rows.index, rows.train.tracks, copies or (plain,))
        found[task] = EmbeddingFolders(train, folders(rows.index, rows.eval.tracks, (plain,)) if rows.eval else ())
    _encode(list(requests.values()), encoder, recipe.resources)
    return found


def _encode(requests: Sequence[_Request], encoder: FrameEncoder, resources: Resources) -> None:
    """Write the files that do not exist yet, then the cards.

    A file is written completely or not at all, and its bytes do not depend on the run. So a killed job resumes, and two
    jobs may write the same file.
    """
    todo = [
        {"request": number, "part": part}
        for number, request in enumerate(requests)
        for part in sorted(request.shards - set(request.folder.names()))
    ]
    if todo:
        sizes = {part.name: part.rows for request in requests for _, part in request.index.shards(ALL)}
        rows = sum(sizes[str(each["part"])] for each in todo)
        progress = Progress("encode", rows, "crops")
        gpus = gpus_per_worker(resources)
        done = ray.data.from_items(todo, override_num_blocks=len(todo)).map(
            _Encoder,
            fn_constructor_args=(ray.put(encoder), list(requests), device_of(resources)),
            compute=actor_pool(resources, len(todo), rows),
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
            label_selector=label_selector_for("train", resources),
        )
        for row in with_time_for(max(sizes[str(each["part"])] for each in todo), done).iter_rows():
            progress.add(sizes[row["part"]])
        progress.finish()
    for request in requests:
        embedding_store.write_card(request.folder, request.encoding)


class _Encoder:
    """The encoder on one worker; one row is one file."""

    def __init__(self, encoder: ray.ObjectRef, requests: list[_Request], device: str) -> None:
        import cv2
        import torch

        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        self._device = torch.device(device)
        # The memory format of training, so that both compute the same bits.
        self._encoder = ray.get(encoder).to(self._device).to(memory_format=torch.channels_last)
        self._requests = requests

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        request, part = self._requests[row["request"]], row["part"]
        data = embedding_store.encode_part(self._encoder, request.encoding, request.index, part, self._device)
        request.folder.write(part, data)
        return {"part": part}
