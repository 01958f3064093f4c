"""Crops to embeddings, in batches of a fixed shape: embeddings do not depend on batch composition."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from aupipe.annotation.model_set import ModelSet, SetMember
from aupipe.models.inference import Encoder


class EncodersElsewhere(Protocol):
    """The encoders of all models in other processes.

    Attributes:
        work_s: seconds that they have worked.
    """

    work_s: float

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return the embeddings, as `Encoders`."""


class Encoders:
    """The encoders of all models on one device."""

    def __init__(self, models: ModelSet, batch_size: int, device: str) -> None:
        self._batch_size = batch_size
        self._members = [(member, member.model.encoder(batch_size, device)) for member in models.members]

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return the embeddings (N, ΣE) float32 of N crops (T, 112, 112, 3) uint8, model after model."""
        return np.concatenate([self._embed(member, encoder, crops) for member, encoder in self._members], axis=1)

    def _embed(self, member: SetMember, encoder: Encoder, crops: Sequence[np.ndarray]) -> np.ndarray:
        chunks = [np.zeros((0, member.model.embed_dim), np.float32)]
        for start in range(0, len(crops), self._batch_size):
            chunks.append(
                encoder(np.stack([crop[member.template] for crop in crops[start : start + self._batch_size]]))
            )
        return np.concatenate(chunks)


def broken_device(device: str) -> tuple[type[Exception], ...]:
    """Return the errors after which every call to the device fails, for any crops: the process must end."""
    if device == "cpu":
        return ()
    import torch

    return (torch.AcceleratorError,)


def set_torch_threads(count: int) -> int | None:
    """Set the number of threads that torch uses on this thread, and return the number before; None without torch.

    Torch is not imported for this: models that need it are loaded before, and others run on one thread anyway.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    before: int = torch.get_num_threads()
    torch.set_num_threads(count)
    return before
