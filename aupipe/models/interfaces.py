"""What every system is made of: an expensive encoder of single frames and a light head over a sequence of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aupipe import facs


class FrameEncoder(nn.Module):
    """Maps frames (B, 3, H, W), normalised, to embeddings (B, E), each frame on its own.

    Attributes:
        width: E.
    """

    width: int


class SequenceHead(nn.Module):
    """Maps embeddings (B, S, E) to logits {"au": (B, S, 12)[, "expr": (B, S, C)]}.

    Called with `mask` (B, S) bool, true where a frame is there, and `time` (B, S) float64, seconds of media time.
    """


class LogitsHead(SequenceHead):
    """Head of a system that judges frames one by one: its encoder is cut after the AU logits (E = 12)."""

    def forward(self, features: Tensor, mask: Tensor, time: Tensor) -> dict[str, Tensor]:
        return {"au": features}


class System(nn.Module):
    """A complete model. `encoder` and `head` may run in different places, with stored embeddings between them."""

    def __init__(self, *, encoder: FrameEncoder, head: SequenceHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Logits {"au": (B, 12), …} of separate frames (B, 3, H, W): each is a sequence of one."""
        features: Tensor = self.encoder(frames)
        mask = torch.ones(len(frames), 1, dtype=torch.bool, device=frames.device)
        time = torch.zeros(len(frames), 1, dtype=torch.float64, device=frames.device)
        outputs: dict[str, Tensor] = self.head(features[:, None], mask, time)
        return {name: logits[:, 0] for name, logits in outputs.items()}


N_AUS = len(facs.AUS)
