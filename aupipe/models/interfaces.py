"""Parts of every system: an expensive encoder of single frames and a light head over a sequence of frames."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aupipe import facs

N_AUS = len(facs.AUS)


class FrameEncoder(nn.Module):
    """Encoder of normalized frames (B, 3, H, W) to embeddings (B, E), each frame independently.

    Attributes:
        embed_dim: E.
    """

    embed_dim: int


class SequenceHead(nn.Module):
    """Head from embeddings (B, S, E) to logits {"au": (B, S, 12)[, "expr": (B, S, C)]}.

    Called with `mask` (B, S) bool, false for padding, and `time` (B, S) float64, seconds of media time. A head that
    `uses_audio` also gets `mel` (B, 64, M), the log-mel spectrogram around the frames, and `column` (B, S) int64, its
    column at each frame's time, −1 without audio.

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

    def forward(
        self, features: Tensor, mask: Tensor, time: Tensor, mel: Tensor | None = None, column: Tensor | None = None
    ) -> dict[str, Tensor]:
        return dict(zip(self.outputs, features.split(list(self.outputs.values()), dim=-1), strict=True))


class System(nn.Module):
    """A complete model. `encoder` and `head` may run in different processes, with stored embeddings between them."""

    def __init__(self, *, encoder: FrameEncoder, head: SequenceHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(
        self, frames: Tensor, mask: Tensor, time: Tensor, mel: Tensor | None = None, column: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return logits {"au": (B, S, 12), …} of frames (B, S, 3, H, W); other arguments as in `SequenceHead`."""
        features: Tensor = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        outputs: dict[str, Tensor] = self.head(features, mask, time, mel, column)
        return outputs


def still(frames: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return `mask` and `time` (N, 1) of N independent frames, each a sequence of one."""
    mask = torch.ones(frames, 1, dtype=torch.bool, device=device)
    return mask, torch.zeros(frames, 1, dtype=torch.float64, device=device)
