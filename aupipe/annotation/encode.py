"""Crops to embeddings, in batches of one fixed shape: what a crop becomes does not depend on its company."""

from __future__ import annotations

import numpy as np
import torch

from aupipe.annotation.ensemble import Ensemble


class Encoders:
    """The encoders of all models on one device."""

    def __init__(self, models: Ensemble, batch_size: int, device: torch.device) -> None:
        self._members, self._batch_size, self._device = models.members, batch_size, device
        self._encoders = [member.system.encoder.to(device).eval() for member in models.members]

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """(N, ΣE) float32 embeddings, one model's after another's, of crops (N, T, 112, 112, 3) uint8."""
        return np.concatenate([self._embed(number, crops) for number in range(len(self._members))], axis=1)

    def _embed(self, number: int, crops: np.ndarray) -> np.ndarray:
        member, encoder, batch = self._members[number], self._encoders[number], self._batch_size
        found = [np.zeros((0, encoder.width), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(crops), batch):
                chunk = crops[start : start + batch, member.template]
                padded = np.zeros((batch, *chunk.shape[1:]), np.uint8)
                padded[: len(chunk)] = chunk
                inputs = member.card.input.prepare(torch.from_numpy(padded).to(self._device))
                found.append(encoder(inputs)[: len(chunk)].float().cpu().numpy())
        return np.concatenate(found)
