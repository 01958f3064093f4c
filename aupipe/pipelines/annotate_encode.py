"""What observing runs beside decoding: encode the crops of segments, and listen to the sound of videos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from aupipe.annotation import audio_features, features
from aupipe.annotation.encode import Encoders
from aupipe.annotation.extract import with_embeddings
from aupipe.annotation.faults import INPUT_ERRORS, contain_fault
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.retry import attempt
from aupipe.annotation.settings import AnnotateConfig
from aupipe.faces import CROP_SIZE_PX
from aupipe.storage import Storage


class ExtractAudio:
    """Leaves the sound of a video for finalize."""

    def __init__(self, config: AnnotateConfig, storage: Storage) -> None:
        self._limits, self._storage = config.limits, storage

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)
        with (
            contain_fault(self._storage, row["video_id"], INPUT_ERRORS) as outcome,
            attempt(self._storage, f"{row['key']}.sound", self._limits.attempts, self._limits.probe_s),
        ):
            audio_features.write_log_mel(self._storage, row["key"], row["uri"])
        return {**row, "error": outcome.reason}


# What `Encode` says of a part.
_DONE = pa.schema([
    ("video_id", pa.string()), ("error", pa.string()), ("attempts", pa.int64()), ("work_s", pa.float64()),
    ("last", pa.bool_()), ("frames", pa.int64()),
])  # fmt: skip
# After it every call of the device fails, whatever the crops: the process must end, and the job with it.
_BROKEN_DEVICE = (torch.AcceleratorError,)


class Encode:
    """Embeds the crops of several parts, and leaves each part's rows for finalize. If that raises, each part is
    embedded alone, so that only the input whose part raises is set aside.
    """

    def __init__(self, models: ray.ObjectRef, storage: Storage, batch_size: int, device: str) -> None:
        torch.set_num_threads(1)  # one CPU is what the actor has; and more threads could sum in another order
        loaded: ModelSet = ray.get(models)
        self._encoders = Encoders(loaded, batch_size, torch.device(device))
        self._crop_shape = (len(loaded.templates), CROP_SIZE_PX, CROP_SIZE_PX, 3)
        self._storage = storage

    def __call__(self, batch: pa.Table) -> pa.Table:
        start = time.monotonic()
        parts = batch.drop_columns("crops").to_pylist()
        # As they lie in the batch: they are the largest thing in this worker.
        buffers = [crops.as_buffer() for crops in batch["crops"]]
        whole: list[np.ndarray] = []
        with contain_fault(self._storage, None, fatal=_BROKEN_DEVICE) as together:
            whole = self._embed(buffers)
        done = []
        for number, part in enumerate(parts):
            frames = 0
            with contain_fault(self._storage, part["video_id"], fatal=_BROKEN_DEVICE) as alone:
                (mine,) = self._embed([buffers[number]]) if together.reason else whole[number : number + 1]
                frames = 0 if part["error"] else self._leave(part, mine)
            said = {name: part[name] for name in ("video_id", "attempts", "work_s", "last")}
            done.append(said | {"error": part["error"] or alone.reason, "frames": frames})
        share = (time.monotonic() - start) / max(len(done), 1)
        return pa.Table.from_pylist([d | {"work_s": d["work_s"] + share} for d in done], _DONE)

    def _embed(self, buffers: Sequence[pa.Buffer]) -> list[np.ndarray]:
        """The embeddings (m, ΣE) of the crops of each part."""
        crops = [np.frombuffer(buffer, np.uint8).reshape(-1, *self._crop_shape) for buffer in buffers]
        embeddings = self._encoders([crop for part in crops for crop in part])
        edges = np.cumsum([0, *map(len, crops)]).tolist()
        return [embeddings[first:last] for first, last in pairwise(edges)]

    def _leave(self, part: dict[str, Any], embeddings: np.ndarray) -> int:
        """Write a part for finalize. Returns its frames."""
        rows = with_embeddings(_from_ipc(part["rows"]), embeddings)
        features.write(self._storage, part["key"], part["number"], part["last"], rows)
        return len(np.unique(rows["frame"].to_numpy()))


def _from_ipc(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()
