"""A model in torch, for annotation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aupipe.arrays import Floats, Ints
from aupipe.config import Precision
from aupipe.errors import ConfigError
from aupipe.models import sliding_window
from aupipe.models.checkpoint import Card
from aupipe.models.embedding import embed, encoder_sha256
from aupipe.models.inference import Encoder, Rows
from aupipe.models.interfaces import FrameEncoder, System
from aupipe.models.sliding_window import Columns, run_head


@dataclass(frozen=True)
class TorchModel:
    """A system in eval mode, its card, and the precision of its encoder."""

    system: System
    card: Card
    precision: Precision = "float32"

    @property
    def embed_dim(self) -> int:
        return self.system.encoder.embed_dim

    @property
    def window_length(self) -> int:
        return self.system.head.window_length

    @property
    def uses_audio(self) -> bool:
        return self.system.head.uses_audio

    @property
    def outputs(self) -> dict[str, int]:
        return sliding_window.outputs(self.system.head, self.embed_dim)

    @property
    def encoder_parts(self) -> tuple[object, ...]:
        parts = encoder_sha256(self.system.encoder), self.card.input.model_dump(mode="json")
        return parts if self.precision == "float32" else (*parts, self.precision)

    def encoder(self, batch_size: int, device: str) -> Encoder:
        place = torch.device(device)
        network = self.system.encoder.to(place)
        network.to(memory_format=torch.channels_last)

        def encode(crops: np.ndarray) -> np.ndarray:
            images = torch.from_numpy(crops)
            if place.type == "cuda":  # A copy from other memory would wait for the GPU.
                images = images.pin_memory()
            inputs = self.card.input.prepare(images.to(place, non_blocking=True))
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            return np.asarray(embed(network, inputs, batch_size, self.precision).cpu().numpy())

        return encode

    def predict(
        self, features: Rows, time_s: Floats, *, overlap: float,
        mel: Columns | None = None, column: Ints | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        found = run_head(self.system.head, _Tensors(features), time_s, overlap=overlap, mel=mel, column=column)
        return {name: probabilities.numpy() for name, probabilities in found.items()}

    def without_encoder(self) -> TorchModel:
        encoder = FrameEncoder()
        encoder.embed_dim = self.embed_dim
        return replace(self, system=System(encoder=encoder, head=self.system.head))


class _Tensors:
    """Rows as tensors."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __getitem__(self, rows: slice, /) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._rows[rows]))


def check_device(device: str) -> None:
    """Check that torch can compute on a device.

    Raises:
        ConfigError: it cannot.
    """
    if cause := device_fault(device):
        raise ConfigError(f"resources.gpu=true: torch has no device {device!r} here ({cause}); fix: leave it out")


def device_fault(device: str) -> str:
    """Return why torch cannot compute on a device; "" if it can."""
    try:
        torch.ones(1, device=device).sum().item()
    # No driver, or one that is too old, a GPU that is too old, a wrong name; a torch that was built without CUDA.
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0].partition(". ")[0]
    return ""
