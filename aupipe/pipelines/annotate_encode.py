"""What observing runs beside decoding: encode the crops of segments, and listen to the sound of videos."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from aupipe.annotation import observed, sound
from aupipe.annotation.attempts import attempt
from aupipe.annotation.encode import Encoders
from aupipe.annotation.ensemble import Ensemble
from aupipe.annotation.observe import with_embeddings
from aupipe.annotation.settings import AnnotateConfig
from aupipe.faces.align import CROP_SIZE_PX
from aupipe.pipelines.annotate_decode import HOSTILE, reason_of
from aupipe.storage import Storage


class Listen:
    """Leaves the sound of a video for finalise."""

    def __init__(self, config: AnnotateConfig, storage: Storage) -> None:
        self._limits, self._storage = config.limits, storage

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)
        try:
            with attempt(self._storage, f"{row['key']}.sound", self._limits.attempts, self._limits.probe_s):
                sound.leave(self._storage, row["key"], row["uri"])
        except HOSTILE as error:
            return {**row, "error": reason_of(error)}
        return {**row, "error": ""}


class Encode:
    """Embeds the crops of several parts, and leaves each part's rows for finalise."""

    def __init__(self, models: ray.ObjectRef, storage: Storage, batch_size: int, device: str) -> None:
        torch.set_num_threads(1)  # one CPU is what the actor has; and more threads could sum in another order
        loaded: Ensemble = ray.get(models)
        self._encoders = Encoders(loaded, batch_size, torch.device(device))
        self._crop_shape = (len(loaded.templates), CROP_SIZE_PX, CROP_SIZE_PX, 3)
        self._storage = storage

    def __call__(self, batch: pa.Table) -> pa.Table:
        start = time.monotonic()
        parts = batch.drop_columns("crops").to_pylist()
        # As they lie in the batch: they are the largest thing in this worker.
        buffers = [crops.as_buffer() for crops in batch["crops"]]
        crops = [np.frombuffer(buffer, np.uint8).reshape(-1, *self._crop_shape) for buffer in buffers]
        embeddings = self._encoders([crop for part in crops for crop in part])
        done = []
        for part, count in zip(parts, (len(c) for c in crops), strict=True):
            mine, embeddings = embeddings[:count], embeddings[count:]
            frames = 0
            if not part["error"]:
                rows = with_embeddings(_from_ipc(part["rows"]), mine)
                observed.write(self._storage, part["key"], part["number"], part["last"], rows)
                frames = len(np.unique(rows["frame"].to_numpy()))
            done.append(
                {name: part[name] for name in ("video_id", "error", "attempts", "work_s", "last")} | {"frames": frames}
            )
        share = (time.monotonic() - start) / max(len(done), 1)
        return pa.Table.from_pylist([d | {"work_s": d["work_s"] + share} for d in done])


def _from_ipc(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
