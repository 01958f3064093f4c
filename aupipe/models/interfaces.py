"""Parts of every system: an expensive encoder of single frames and a light head over a sequence of frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aupipe import facs

N_AUS = len(facs.AUS)


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences of S frames.

    Attributes:
        features: (B, S, E) embeddings; before the encoder, normalized frames (B, S, 3, H, W).
        mask: (B, S) bool, false for padding.
        time_s: (B, S) float64, media time.
        mel: (B, 64, M), the log-mel spectrogram around the frames; None without audio.
        column: (B, S) int64, the column of `mel` at each frame's time, −1 without audio; None like `mel`.
    """

    features: Tensor
    mask: Tensor
    time_s: Tensor
    mel: Tensor | None = None
    column: Tensor | None = None

    @classmethod
    def untimed(cls, features: Tensor) -> SequenceBatch:
        """Return a batch of `features` (B, S, …) without padding, audio or media time: all frames are at 0 s."""
        shape = features.shape[:2]
        mask = torch.ones(shape, dtype=torch.bool, device=features.device)
        return cls(features, mask, torch.zeros(shape, dtype=torch.float64, device=features.device))

    def to(self, device: torch.device) -> SequenceBatch:
        """Return the batch on another device. The copy of a pinned batch does not wait for a GPU."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> SequenceBatch:
        """Return the batch in page-locked memory."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> SequenceBatch:
        audio = (None if tensor is None else change(tensor) for tensor in (self.mel, self.column))
        return SequenceBatch(change(self.features), change(self.mask), change(self.time_s), *audio)

    def encoded(self, encoder: nn.Module) -> SequenceBatch:
        """Return the batch with the embeddings of its frames."""
        return replace(self, features=on_frames(encoder, self.features, self.mask))


def on_frames(module: nn.Module, frames: Tensor, mask: Tensor) -> Tensor:
    """Return the outputs (B, S, …) of a module for each frame of (B, S, …).

    In train mode the module gets only valid frames, so that padding does not enter batch-norm statistics. The outputs
    for padding are then 0. A single valid frame has no statistics, and gets those of the padding too.
    """
    flat, valid = frames.flatten(0, 1), mask.flatten()
    # The number of valid frames waits for a GPU, so clips of one frame, which have no padding, are not counted. Nor are
    # those on the meta device, which have no values.
    uncounted = not module.training or mask.shape[1] == 1 or mask.is_meta
    if uncounted or not 1 < int(valid.sum()) < len(valid):
        out: Tensor = module(flat)
    else:
        found = module(flat[valid])
        out = found.new_zeros(len(flat), *found.shape[1:])
        out[valid] = found
    return out.unflatten(0, mask.shape)


class FrameEncoder(nn.Module):
    """Encoder of normalized frames (B, 3, H, W) to embeddings (B, E), each frame independently.

    Attributes:
        embed_dim: E.
    """

    embed_dim: int


class SequenceHead(nn.Module):
    """Head from a `SequenceBatch` of embeddings to logits {"au": (B, S, 12)[, "expr": (B, S, C)]}.

    Attributes:
        window_length: S that the head is made for; 1: it predicts each frame independently.
        uses_audio: whether it reads `mel` and `column`.
    """

    window_length: int = 1
    uses_audio: bool = False


class LogitsHead(SequenceHead):
    """Head of a single-frame system, whose encoder already ends in its logits."""

    def __init__(self, outputs: Mapping[str, int]) -> None:
        """
        Args:
            outputs: name → number of logits, in the order of the encoder's E logits.
        """
        super().__init__()
        self.outputs = dict(outputs)

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        return dict(zip(self.outputs, batch.features.split(list(self.outputs.values()), dim=-1), strict=True))


class System(nn.Module):
    """A complete model. `encoder` and `head` may run in different processes, with stored embeddings between them."""

    def __init__(self, *, encoder: FrameEncoder, head: SequenceHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Return logits {"au": (B, S, 12), …} of a batch of normalized frames."""
        outputs: dict[str, Tensor] = self.head(batch.encoded(self.encoder))
        return outputs
