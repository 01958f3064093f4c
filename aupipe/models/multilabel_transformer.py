"""Multi-label transformer: one learned token per AU cross-attends to the feature tokens of a CNN.

Tallec, Yvinec, Dapogny, Bailly: Multi-label Transformer for Action Unit Detection (ABAW3, 2022), and the authors'
published code for sizes that the paper leaves open.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aupipe.models.backbone import Backbone, make
from aupipe.models.configs import MultilabelTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, FrameEncoder, LogitsHead, System
from aupipe.models.transformer import DecoderLayer, EncoderLayer


class ImageTokens(nn.Module):
    """Features (B, C, h, w) → tokens (B, h·w, d): 1×1 convolution, learned position, one self-attention layer."""

    def __init__(self, *, config: MultilabelTransformerConfig, channels: int, tokens: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, config.width, kernel_size=1)
        self.position = nn.Parameter(torch.randn(tokens, config.width) * 0.02)
        self.layer = EncoderLayer(
            width=config.width, heads=config.heads, hidden=config.mlp_width, dropout=config.dropout
        )

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.project(features).flatten(2).transpose(1, 2)
        out: Tensor = self.layer(tokens + self.position)
        return out


class LabelDecoder(nn.Module):
    """Image tokens (B, S, d) → AU logits (B, 12): label tokens W_t, decoder layers, one shared W_p (eq. 5-8)."""

    def __init__(self, *, config: MultilabelTransformerConfig) -> None:
        super().__init__()
        self.labels = nn.Parameter(torch.randn(N_AUS, config.width))
        self.layers = nn.ModuleList(
            DecoderLayer(
                width=config.width, heads=config.heads, hidden=config.mlp_width, dropout=config.dropout,
                two_mlps=config.decoder_style == "authors",
            )
            for _ in range(config.decoder_layers)
        )  # fmt: skip
        self.predict = nn.Linear(config.width, 1)

    def forward(
        self, image: Tensor, label_mask: Tensor | None = None, image_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, 12) and the last layer's attention (B, heads, 12, S). Masks as in `transformer`."""
        labels = self.labels.expand(image.shape[0], -1, -1)
        attention = torch.empty(0)
        for layer in self.layers:
            labels, attention = layer(labels, image, label_mask, image_mask)
        return self.predict(labels)[..., 0], attention


class MultilabelEncoder(FrameEncoder):
    """Frames (B, 3, H, W) → AU logits (B, 12)."""

    embed_dim = N_AUS

    def __init__(self, *, backbone: Backbone, image: ImageTokens, decoder: LabelDecoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.image = image
        self.decoder = decoder

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.image(self.backbone(frames)))[0]
        return logits

    def attention_maps(self, frames: Tensor) -> Tensor:
        """Return the attention map (B, 12, h, w) of each AU's token, with sum 1 (last layer, mean over heads)."""
        attention: Tensor = self.decoder(self.image(self.backbone(frames)))[1]
        return attention.mean(dim=1).unflatten(-1, self.backbone.grid)


def build(config: MultilabelTransformerConfig, inputs: InputSpec) -> System:
    """Return the system with random weights for inputs of that size."""
    backbone = make(config.backbone, inputs.size_px, map_only=True)
    tokens = backbone.grid[0] * backbone.grid[1]
    encoder = MultilabelEncoder(
        backbone=backbone,
        image=ImageTokens(config=config, channels=backbone.channels, tokens=tokens),
        decoder=LabelDecoder(config=config),
    )
    return System(encoder=encoder, head=LogitsHead({"au": N_AUS}))
