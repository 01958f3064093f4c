"""Expression transfer: a network pretrained on expressions gets a head for action units.

Wang, Chang, Wang: Facial Action Unit Recognition Based on Transfer Learning (ABAW3, 2022). Stage 1 has only the
output "expr", stage 2 only the output "au". The paper leaves the widths of the two hidden layers open.
"""

from __future__ import annotations

from torch import nn

from aupipe.models.backbone import make
from aupipe.models.configs import ExpressionTransferConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, LogitsHead, System
from aupipe.models.outputs import LogitsEncoder


def au_head(*, width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Return layers (B, width) → (B, 12): linear, batch norm, ReLU and dropout per hidden layer, then linear."""
    layers: list[nn.Module] = []
    for inner, outer in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear((width, *hidden)[-1], N_AUS))


def build(config: ExpressionTransferConfig, inputs: InputSpec) -> System:
    """Return the system with random weights for inputs of that size."""
    backbone = make(config.backbone, inputs.size_px)
    heads: dict[str, nn.Module] = {}
    if "expr" in config.outputs:
        heads["expr"] = nn.Linear(backbone.pooled_width, config.expressions)
    if "au" in config.outputs:
        heads["au"] = au_head(width=backbone.pooled_width, hidden=config.hidden, dropout=config.dropout)
    encoder = LogitsEncoder(backbone=backbone, outputs=config.sizes, heads=heads, mirrored=config.mirrored)
    return System(encoder=encoder, head=LogitsHead(config.sizes))
