"""Crops to embeddings, in batches of a fixed shape: embeddings do not depend on batch composition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from aupipe.annotation.model_set import ModelSet, SetMember
from aupipe.models.embedding import embed


class Encoders:
    """The encoders of all models on one device."""

    def __init__(self, models: ModelSet, batch_size: int, device: torch.device) -> None:
        self._members, self._batch_size, self._device = models.members, batch_size, device
        for member in self._members:
            member.system.encoder.to(device)

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return the embeddings (N, ΣE) float32 of N crops (T, 112, 112, 3) uint8, model after model."""
        return np.concatenate([self._embed(member, crops) for member in self._members], axis=1)

    def _embed(self, member: SetMember, crops: Sequence[np.ndarray]) -> np.ndarray:
        encoder, batch = member.system.encoder, self._batch_size
        chunks = [np.zeros((0, encoder.embed_dim), np.float32)]
        for start in range(0, len(crops), batch):
            chunk = np.stack([crop[member.template] for crop in crops[start : start + batch]])
            inputs = member.card.input.prepare(torch.from_numpy(chunk).to(self._device))
            chunks.append(embed(encoder, inputs, batch).cpu().numpy())
        return np.concatenate(chunks)
