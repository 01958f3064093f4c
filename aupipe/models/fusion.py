"""Feature fusion (FF): weights of the AU branch and of the backbone's own logits.

Yu et al. (ABAW5, CVPR workshops 2023): (a) fixed weights, (b) weights from self-attention for each face.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from aupipe.errors import ConfigError
from aupipe.models.interfaces import N_AUS
from aupipe.models.prenorm import PreNormLayer
from aupipe.models.transformer import LAYER_NORM_EPS


class FixedFusion(nn.Module):
    """Variant (a): the AU branch has the same weight for every face."""

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, whole: Tensor, related: Tensor) -> Tensor:
        """Return the weight; arguments as in `AttentionFusion.forward`."""
        return whole.new_full((whole.shape[0], 1), self.weight)


class AttentionFusion(nn.Module):
    """Variant (b): a weight token attends to the backbone's vector and to the AU features.

    Args:
        channels: of the AU features and of the tokens.
        pooled: width of the backbone's vector.
        weight: pair: softmax over two weights, one per branch; per_au: sigmoid of twelve weights.
    """

    def __init__(
        self, *, channels: int, pooled: int, layers: int, heads: int, mlp_width: int, dropout: float,
        weight: Literal["pair", "per_au"],
    ) -> None:  # fmt: skip
        super().__init__()
        if channels % heads:
            raise ConfigError(f"model.fusion_heads: {heads} does not divide the backbone's {channels} channels")
        self.pair = weight == "pair"
        self.token = nn.Parameter(torch.randn(channels) * 0.02)
        self.whole = nn.Linear(pooled, channels)
        self.layers = nn.Sequential(
            *(PreNormLayer(width=channels, heads=heads, hidden=mlp_width, dropout=dropout) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.predict = nn.Linear(channels, 2 if self.pair else N_AUS)

    def forward(self, whole: Tensor, related: Tensor) -> Tensor:
        """Map backbone vectors (B, E), AU features (B, 12, C) to AU-branch weights (B, 1) or (B, 12) in (0, 1)."""
        token = self.token.expand(whole.shape[0], 1, -1)
        tokens = torch.cat([token, self.whole(whole)[:, None], related], dim=1)  # (B, 14, C)
        scores: Tensor = self.predict(self.norm(self.layers(tokens)[:, 0]))
        return scores.softmax(dim=-1)[:, :1] if self.pair else scores.sigmoid()


def fuse(weight: Tensor, related: Tensor, whole: Tensor) -> Tensor:
    """Return w z_AU + (1 − w) z_backbone, all (B, 12) or broadcast to it."""
    return weight * related + (1 - weight) * whole
