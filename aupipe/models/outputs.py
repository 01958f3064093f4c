"""Outputs of a system (AUs, expressions or both), and the encoder of single-frame systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from aupipe.config import Section
from aupipe.models.backbone import Backbone
from aupipe.models.interfaces import N_AUS, FrameEncoder

Output = Literal["au", "expr"]


class OutputsConfig(Section):
    """The outputs of a system, in order."""

    outputs: tuple[Output, ...] = Field(default=("au",), min_length=1)  # Outputs of the model, in this order.
    expressions: int = Field(default=8, ge=2)  # classes

    @field_validator("outputs")
    @classmethod
    def _each_once(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        if len(set(outputs)) < len(outputs):
            raise ValueError("an output is listed twice")
        return outputs

    @property
    def sizes(self) -> dict[str, int]:
        """Name → number of logits."""
        return {name: N_AUS if name == "au" else self.expressions for name in self.outputs}


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
        logits = self._logits(frames)
        if self.mirrored and not self.training:
            logits = (logits + self._logits(frames.flip(-1))) / 2
        return logits

    def _logits(self, frames: Tensor) -> Tensor:
        pooled = self.backbone.pooled(self.backbone(frames))
        return torch.cat([self.get_submodule(name)(pooled) for name in self.outputs], dim=-1)
