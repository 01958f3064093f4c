"""Image backbones by name: frames (B, 3, H, W) → map (B, C, h, w) → one vector per frame.

The names of the face-recognition networks are those of `FACE`; any other name is timm's.
"""

from __future__ import annotations

import abc
from functools import partial

import torch
from torch import Tensor, nn

from aupipe.errors import ConfigError
from aupipe.models.ir_se import IRSE50
from aupipe.models.iresnet import VARIANTS, IResNet

# name → constructor(size_px, dropout, map_only)
FACE = {name: partial(IResNet, variant=variant) for name, variant in VARIANTS.items()} | {"ir_se50": IRSE50}


class Backbone(nn.Module, abc.ABC):
    """Base class of networks without classifier.

    Attributes:
        name: as in the configuration.
        network: the network itself; its state dict has the keys of the published weights.
        cut: names of the removed layers, as in state dicts of the whole network.
        added: names of tensors that published weights lack: prompts.
        channels: C.
        grid: (h, w).
        pooled_width: E of `pooled`.
    """

    name: str
    network: nn.Module
    cut: tuple[str, ...]
    added: tuple[str, ...] = ()
    channels: int
    grid: tuple[int, int]
    pooled_width: int

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames (B, 3, H, W) to a feature map (B, C, h, w)."""
        features: Tensor = self.network(frames)
        return features

    @abc.abstractmethod
    def pooled(self, features: Tensor) -> Tensor:
        """Pool a feature map (B, C, h, w) to one vector per frame (B, E)."""


def make(name: str, size_px: int, *, dropout: float = 0.0, map_only: bool = False) -> Backbone:
    """Return the backbone of that name for inputs of that size, with random weights.

    Args:
        dropout: for `pooled`: before a face network's embedding, after timm's average.
        map_only: leave out the layers behind the map, so that no unused layer is trained; `pooled` must not be called.

    Raises:
        ConfigError: there is no such network, or it has no feature map.
    """
    if name in FACE:
        return FaceBackbone(name=name, size_px=size_px, dropout=dropout, map_only=map_only)
    return TimmBackbone(name=name, size_px=size_px, dropout=dropout)


class FaceBackbone(Backbone):
    """A face-recognition network; the vector of a frame is its embedding."""

    network: IResNet | IRSE50

    def __init__(self, *, name: str, size_px: int, dropout: float, map_only: bool) -> None:
        super().__init__()
        self.name = name
        self.network = FACE[name](size_px=size_px, dropout=dropout, map_only=map_only)
        self.cut = self.network.CUT if map_only else ()
        self.channels, self.grid, self.pooled_width = self.network.channels, self.network.grid, self.network.width

    def pooled(self, features: Tensor) -> Tensor:
        return self.network.embed(features)


class TimmBackbone(Backbone):
    """A timm network without pooling and classifier; the vector of a frame is the average over its map."""

    def __init__(self, *, name: str, size_px: int, dropout: float) -> None:
        import timm  # takes seconds, so it is imported only when needed

        super().__init__()
        try:
            network = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        except RuntimeError:
            near = timm.list_models(f"{name[:6]}*")[:5] or sorted(FACE)
            raise ConfigError(f"model.backbone: timm has no {name!r}; allowed are {', '.join(near)} …") from None
        cut = network.pretrained_cfg.get("classifier") or ()
        self.name, self.network = name, network
        self.cut = (cut,) if isinstance(cut, str) else tuple(cut)
        self.eval()
        with torch.no_grad():
            shape = tuple(self(torch.zeros(1, 3, size_px, size_px)).shape)
        self.train()
        if len(shape) != 4:
            raise ConfigError(f"model.backbone: {name!r} has features {shape[1:]}; a network with C×h×w is needed")
        self.channels, self.grid = shape[1], (shape[2], shape[3])
        self.pooled_width = self.channels
        self.dropout = nn.Dropout(dropout)

    def pooled(self, features: Tensor) -> Tensor:
        out: Tensor = self.dropout(features.mean(dim=(-2, -1)))
        return out
