"""Image transformer: a ViT over single frames, with linear heads and optional deep prompts.

"Base-ViT-21k" of Tu et al.: Prompt Tuning for Facial Action Unit Detection in the Wild (2023), table 2; the ViT-B/16 is
that of Ridnik et al.: ImageNet-21K Pretraining for the Masses (2021). A hybrid reads the map of a CNN instead of the
frame (Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021, section 3.1); this is ours, for a CNN of our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from aupipe.errors import ConfigError
from aupipe.models.backbone import Backbone, make
from aupipe.models.configs import ImageTransformerConfig, PromptConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import LogitsHead, System
from aupipe.models.outputs import LogitsEncoder
from aupipe.models.prompts import PromptedLayers

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


class VitBackbone(Backbone):
    """A Vision Transformer of timm over frames or a CNN's map; its own "map" is its tokens (B, S, d), CLS first."""

    network: VisionTransformer

    def __init__(self, *, name: str, size_px: int, prompts: PromptConfig | None, cnn: Backbone | None = None) -> None:
        """
        Args:
            cnn: the network whose map (B, C, h, w) is the input, each position a token.

        Raises:
            ConfigError: timm has no such network, or it is not a plain Vision Transformer.
        """
        import timm  # takes seconds, so it is imported only when needed
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        on_map = {} if cnn is None else {"img_size": cnn.grid, "patch_size": 1, "in_chans": cnn.channels}
        try:
            network = timm.create_model(name, pretrained=False, num_classes=0, **({"img_size": size_px} | on_map))
        except (RuntimeError, TypeError):
            network = None
        if not isinstance(network, VisionTransformer):
            near = timm.list_models(f"{name[:6]}*", module="vision_transformer")[:5] or ["vit_base_patch16_224"]
            raise ConfigError(
                f"model.backbone: {name!r} is no Vision Transformer of timm; allowed are {', '.join(near)} …"
            )
        self.name, self.network, self.cut = name, network, ("head",)
        self.added = ("blocks.prompts",) if prompts and prompts.length else ()
        self.grid, self.channels = network.patch_embed.grid_size, network.embed_dim
        self.pooled_width = network.embed_dim
        fan_in = math.prod(network.patch_embed.proj.weight.shape[1:])
        network.blocks = PromptedLayers(
            network.blocks, config=prompts, width=network.embed_dim, fan_in=fan_in,
            first=network.num_prefix_tokens,
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        tokens: Tensor = self.network.forward_features(frames)
        return tokens

    def pooled(self, features: Tensor) -> Tensor:
        """Pool tokens (B, S, d) to (B, d) as in the network's training: its CLS token, or the mean."""
        out: Tensor = self.network.forward_head(features, pre_logits=True)
        return out


class HybridEncoder(LogitsEncoder):
    """Frames (B, 3, H, W) → logits (B, E) by a ViT over the map of a CNN, which is the named backbone."""

    def __init__(
        self, *, cnn: Backbone, vit: VitBackbone, outputs: Mapping[str, int], heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(backbone=cnn, outputs=outputs, heads=heads)
        self.vit = vit

    def pooled(self, frames: Tensor) -> Tensor:
        return self.vit.pooled(self.vit(self.backbone(frames)))


def build(config: ImageTransformerConfig, inputs: InputSpec) -> System:
    """Return the system with random weights for inputs of that size."""
    cnn = None if config.cnn is None else make(config.cnn, inputs.size_px, map_only=True)
    vit = VitBackbone(name=config.backbone, size_px=inputs.size_px, prompts=config.prompts, cnn=cnn)
    heads = {name: nn.Linear(vit.pooled_width, size) for name, size in config.sizes.items()}
    if cnn is None:
        encoder = LogitsEncoder(backbone=vit, outputs=config.sizes, heads=heads)
    else:
        encoder = HybridEncoder(cnn=cnn, vit=vit, outputs=config.sizes, heads=heads)
    return System(encoder=encoder, head=LogitsHead(config.sizes))
