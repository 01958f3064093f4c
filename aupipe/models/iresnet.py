"""IResNet, the face-recognition residual network of InsightFace; state dicts have InsightFace's keys.

Sizes, order of layers and initialization are those of deepinsight/insightface,
recognition/arcface_torch/backbones/iresnet.py; the unit is that of Deng et al.: ArcFace (CVPR 2019).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Variant(NamedTuple):
    """Sizes of an IResNet."""

    depths: tuple[int, int, int, int]  # blocks per stage
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    embedding: int = 512


VARIANTS: dict[str, Variant] = {
    "iresnet18": Variant((2, 2, 2, 2)),
    "iresnet34": Variant((3, 4, 6, 3)),
    "iresnet50": Variant((3, 4, 14, 3)),
    "iresnet100": Variant((3, 13, 30, 3)),
    "iresnet_quick": Variant((1, 1, 1, 1), widths=(16, 32, 64, 128), embedding=128),  # for rendered faces on a CPU
}


class UnscaledBatchNorm1d(nn.BatchNorm1d):
    """Batch norm with scale 1, a buffer instead of a parameter so that no optimizer changes it; its key is `weight`."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        del self.weight
        self.register_buffer("weight", torch.ones(width))


class Block(nn.Module):
    """BN, conv 3×3, BN, PReLU, conv 3×3 (stride), BN, plus the shortcut; nothing after the sum."""

    def __init__(self, *, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = nn.Conv2d(inner, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inner != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out: Tensor = self.bn3(self.conv2(inner)) + self.downsample(x)
        return out


class IResNet(nn.Module):
    """Crops (B, 3, size, size) → map (B, C, g, g), g = ⌈size / 16⌉; map → embedding (B, E).

    Args:
        size_px: of the input; the embedding layer depends on it. InsightFace's weights are for 112.
        dropout: of the flattened map before the embedding layer.
        map_only: leave out the embedding layers.
    """

    CUT = ("fc", "features")  # the layers that `map_only` leaves out

    def __init__(self, *, variant: Variant, size_px: int, dropout: float, map_only: bool) -> None:
        super().__init__()
        stem, self.channels, self.width = variant.widths[0], variant.widths[-1], variant.embedding
        self.conv1 = nn.Conv2d(3, stem, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.prelu = nn.PReLU(stem)
        self.layer1 = _stage(stem, variant.widths[0], variant.depths[0])
        self.layer2 = _stage(variant.widths[0], variant.widths[1], variant.depths[1])
        self.layer3 = _stage(variant.widths[1], variant.widths[2], variant.depths[2])
        self.layer4 = _stage(variant.widths[2], variant.widths[3], variant.depths[3])
        self.bn2 = nn.BatchNorm2d(self.channels)
        self.grid = (-(-size_px // 16),) * 2  # each of the four stages halves the size, rounding up
        if not map_only:
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(self.channels * self.grid[0] * self.grid[1], self.width)
            self.features = UnscaledBatchNorm1d(self.width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(frames)))
        out: Tensor = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return out

    def embed(self, features: Tensor) -> Tensor:
        """Return the embedding (B, E) of a map (B, C, g, g), not normalized to length 1."""
        out: Tensor = self.features(self.fc(self.dropout(features.flatten(1))))
        return out


def _stage(inner: int, width: int, depth: int) -> nn.Sequential:
    rest = (Block(inner=width, width=width, stride=1) for _ in range(depth - 1))
    return nn.Sequential(Block(inner=inner, width=width, stride=2), *rest)
