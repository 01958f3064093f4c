"""Outputs of a system (AUs, expressions or both), and the encoder of single-frame systems."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aupipe.models.backbone import Backbone
from aupipe.models.interfaces import FrameEncoder


class LogitsEncoder(FrameEncoder):
    """Frames (B, 3, H, W) → the concatenated logits of all outputs (B, E), in the order of `outputs`."""

    def __init__(
        self, *, backbone: Backbone, outputs: Mapping[str, int], heads: Mapping[str, nn.Module], mirrored: bool = False
    ) -> None:
        """
        Args:
            outputs: name → number of logits.
            heads: name → layers from the backbone's vector (B, C) to logits.
            mirrored: in eval mode, return the mean of the logits of a frame and of its mirror image.
        """
        super().__init__()
        self.backbone, self.outputs, self.mirrored = backbone, tuple(outputs), mirrored
        self.embed_dim = sum(outputs.values())
        for name, head in heads.items():
            self.add_module(name, head)

    def forward(self, frames: Tensor) -> Tensor:
        if self.mirrored and not self.training:
            both = self._logits(torch.cat([frames, frames.flip(-1)]))
            count = frames.shape[0]  # len() would fix the size of the batch in an exported graph
            return (both[:count] + both[count:]) / 2
        return self._logits(frames)

    def _logits(self, frames: Tensor) -> Tensor:
        pooled = self.pooled(frames)
        return torch.cat([self.get_submodule(name)(pooled) for name in self.outputs], dim=-1)

    def pooled(self, frames: Tensor) -> Tensor:
        """Return one vector per frame (B, C), the input of the heads."""
        return self.backbone.pooled(self.backbone(frames))
