"""Expression transfer: a network that has learnt expressions is given a head for action units.

Wang, Chang, Wang: Facial Action Unit Recognition Based on Transfer Learning (ABAW3, 2022). Stage 1 has the output
"expr" alone, stage 2 the output "au" alone; the paper leaves the widths of the two hidden layers open.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from aupipe.config import Section
from aupipe.models.backbone import Backbone, make
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, FrameEncoder, LogitsHead, System

Output = Literal["au", "expr"]


class ExpressionTransferConfig(Section):
    name: Literal["expression_transfer"] = "expression_transfer"
    backbone: str = "resnet50"  # any that `backbone.make` knows
    outputs: tuple[Output, ...] = Field(default=("au",), min_length=1)
    expressions: int = Field(default=8, ge=2)  # classes
    hidden: tuple[PositiveInt, ...] = (512, 256)  # of the AU head
    dropout: float = Field(default=0.5, ge=0, lt=1)  # of the AU head

    @field_validator("outputs")
    @classmethod
    def _each_once(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        if len(set(outputs)) < len(outputs):
            raise ValueError("an output stands there twice")
        return outputs


class ExpressionTransferEncoder(FrameEncoder):
    """Frames (B, 3, H, W) → the logits of all outputs side by side (B, E), in the configuration's order."""

    def __init__(self, *, config: ExpressionTransferConfig, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.outputs: dict[str, int] = {name: N_AUS if name == "au" else config.expressions for name in config.outputs}
        self.width = sum(self.outputs.values())
        if "expr" in self.outputs:
            self.expr = nn.Linear(backbone.pooled_width, config.expressions)
        if "au" in self.outputs:
            self.au = au_head(width=backbone.pooled_width, hidden=config.hidden, dropout=config.dropout)

    def forward(self, frames: Tensor) -> Tensor:
        pooled = self.backbone.pooled(self.backbone(frames))
        return torch.cat([self.get_submodule(name)(pooled) for name in self.outputs], dim=-1)


def au_head(*, width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """(B, width) → (B, 12): linear, batch norm, ReLU and dropout for each hidden layer, then a linear one."""
    layers: list[nn.Module] = []
    for inner, outer in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear((width, *hidden)[-1], N_AUS))


def build(config: ExpressionTransferConfig, inputs: InputSpec) -> System:
    """The system with random weights, for inputs of that size."""
    encoder = ExpressionTransferEncoder(config=config, backbone=make(config.backbone, inputs.size_px))
    return System(encoder=encoder, head=LogitsHead(encoder.outputs))
