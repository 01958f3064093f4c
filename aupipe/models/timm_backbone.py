"""Image backbones from timm by name, cut before their pooling: (B, 3, H, W) → (B, C, h, w)."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from aupipe.errors import ConfigError


class TimmBackbone(nn.Module):
    """A timm network without pooling and classifier, with random weights.

    Attributes:
        name: timm's.
        classifiers: names of the layers that were cut off, in state dicts of the whole network.
        channels: C.
        grid: (h, w) for inputs of `size_px`.
    """

    def __init__(self, *, name: str, size_px: int) -> None:
        super().__init__()
        try:
            self.network = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        except RuntimeError:
            near = timm.list_models(f"{name[:6]}*")[:5]
            raise ConfigError(f"model.backbone: timm has no {name!r}; it has {', '.join(near) or 'others'} …") from None
        cut = self.network.pretrained_cfg.get("classifier") or ()
        self.name = name
        self.classifiers: tuple[str, ...] = (cut,) if isinstance(cut, str) else tuple(cut)
        self.eval()
        with torch.no_grad():
            shape = tuple(self(torch.zeros(1, 3, size_px, size_px)).shape)
        self.train()
        if len(shape) != 4:
            raise ConfigError(f"model.backbone: {name!r} gives features {shape[1:]}; one that gives C×h×w is needed")
        self.channels = shape[1]
        self.grid = (shape[2], shape[3])

    def forward(self, frames: Tensor) -> Tensor:
        features: Tensor = self.network(frames)
        return features
