"""Local region perception (LRP): a spatial attention map of the face, shared by all action units.

Yu et al.: Local Region Perception and Relationship Learning Combined with Feature Fusion for Facial Action Unit
Detection (ABAW5, CVPR workshops 2023). Its branches are the LANet of Wang and Guo; each location keeps the maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aupipe.errors import ConfigError


class LRP(nn.Module):
    """A(F) = sigmoid(max_k LANet_k(F)); F' = F ⊙ A."""

    def __init__(self, *, channels: int, branches: int, reduction: int) -> None:
        super().__init__()
        if channels % reduction:
            raise ConfigError(f"model.reduction: {reduction} does not divide the backbone's {channels} channels")
        inner = channels // reduction
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, inner, kernel_size=1), nn.ReLU(), nn.Conv2d(inner, 1, kernel_size=1))
            for _ in range(branches)
        )

    def attention(self, features: Tensor) -> Tensor:
        """Return the attention A (B, 1, h, w), in (0, 1), of a map (B, C, h, w)."""
        maps = torch.cat([branch(features) for branch in self.branches], dim=1)
        return maps.amax(dim=1, keepdim=True).sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        return features * self.attention(features)
