"""Image transformer: a ViT over single frames, with linear heads and, if wanted, deep prompts.

"Base-ViT-21k" of Tu et al.: Prompt Tuning for Facial Action Unit Detection in the Wild (2023), table 2; the ViT-B/16 is
that of Ridnik et al.: ImageNet-21K Pretraining for the Masses (2021).
"""

from __future__ import annotations

from typing import Literal

import timm
import torch
from pydantic import Field, field_validator
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from aupipe.config import Section
from aupipe.errors import ConfigError
from aupipe.models.backbone import Backbone
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, FrameEncoder, LogitsHead, System
from aupipe.models.prompts import PromptConfig, PromptedLayers

Output = Literal["au", "expr"]


class ImageTransformerConfig(Section):
    name: Literal["image_transformer"] = "image_transformer"
    backbone: str = "vit_base_patch16_224_miil"  # any VisionTransformer of timm
    outputs: tuple[Output, ...] = Field(default=("au",), min_length=1)
    expressions: int = Field(default=8, ge=2)  # classes
    prompts: PromptConfig | None = None

    @field_validator("outputs")
    @classmethod
    def _each_once(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        if len(set(outputs)) < len(outputs):
            raise ValueError("an output stands there twice")
        return outputs


class ImageTransformerEncoder(FrameEncoder):
    """Frames (B, 3, H, W) → the logits of all outputs side by side (B, E), in the configuration's order."""

    def __init__(self, *, config: ImageTransformerConfig, backbone: VitBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.outputs: dict[str, int] = {name: N_AUS if name == "au" else config.expressions for name in config.outputs}
        self.width = sum(self.outputs.values())
        for name, size in self.outputs.items():
            self.add_module(name, nn.Linear(backbone.pooled_width, size))

    def forward(self, frames: Tensor) -> Tensor:
        pooled = self.backbone.pooled(self.backbone(frames))
        return torch.cat([self.get_submodule(name)(pooled) for name in self.outputs], dim=-1)


class VitBackbone(Backbone):
    """A Vision Transformer of timm; the "map" is its tokens (B, S, d), CLS first."""

    network: VisionTransformer

    def __init__(self, *, name: str, size_px: int, prompts: PromptConfig | None) -> None:
        """Raises ConfigError: timm has no such network, or it is no plain Vision Transformer."""
        super().__init__()
        try:
            network = timm.create_model(name, pretrained=False, num_classes=0, img_size=size_px)
        except (RuntimeError, TypeError):
            network = None
        if not isinstance(network, VisionTransformer):
            near = timm.list_models(f"{name[:6]}*", module="vision_transformer")[:5] or ["vit_base_patch16_224"]
            raise ConfigError(
                f"model.backbone: {name!r} is no Vision Transformer of timm; there are {', '.join(near)} …"
            )
        self.name, self.network, self.cut = name, network, ("head",)
        self.added = ("blocks.prompts",) if prompts and prompts.length else ()
        self.grid, self.channels = network.patch_embed.grid_size, network.embed_dim
        self.pooled_width = network.embed_dim
        rows, columns = network.patch_embed.patch_size
        network.blocks = PromptedLayers(
            network.blocks, config=prompts, width=network.embed_dim, fan_in=3 * rows * columns,
            first=network.num_prefix_tokens,
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        tokens: Tensor = self.network.forward_features(frames)
        return tokens

    def pooled(self, features: Tensor) -> Tensor:
        """Tokens (B, S, d) → (B, d), as the network was trained: its CLS token, or the mean."""
        out: Tensor = self.network.forward_head(features, pre_logits=True)
        return out


def build(config: ImageTransformerConfig, inputs: InputSpec) -> System:
    """The system with random weights, for inputs of that size."""
    backbone = VitBackbone(name=config.backbone, size_px=inputs.size_px, prompts=config.prompts)
    encoder = ImageTransformerEncoder(config=config, backbone=backbone)
    return System(encoder=encoder, head=LogitsHead(encoder.outputs))
