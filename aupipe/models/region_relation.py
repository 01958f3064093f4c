"""Local region perception, AU relationships and feature fusion over a face-recognition network.

Yu et al.: Local Region Perception and Relationship Learning Combined with Feature Fusion for Facial Action Unit
Detection (ABAW5, CVPR workshops 2023). The rows of its ablation (table 2) are settings: 1-3 arl=false lrp=false
fusion=none; 4 arl=true; 5 also lrp=true; 6 also fusion=attention (or fixed).
"""

from __future__ import annotations

from torch import Tensor, nn

from aupipe.errors import ConfigError
from aupipe.models.arl import ARL
from aupipe.models.backbone import Backbone, make
from aupipe.models.configs import RegionRelationConfig
from aupipe.models.fusion import AttentionFusion, FixedFusion, fuse
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, FrameEncoder, LogitsHead, System
from aupipe.models.lrp import LRP


class RegionRelationEncoder(FrameEncoder):
    """Frames (B, 3, H, W) → AU logits (B, 12). Parts that the configuration disables do not exist."""

    embed_dim = N_AUS

    def __init__(self, *, config: RegionRelationConfig, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.channels
        if config.lrp:
            self.lrp = LRP(channels=channels, branches=config.branches, reduction=config.reduction)
        if config.arl:
            self.arl = ARL(
                channels=channels, neighbors=config.neighbors, count_self=config.count_self, output=config.output
            )
        if uses_whole_face(config):
            self.whole = nn.Linear(backbone.pooled_width, N_AUS)
        if config.fusion == "fixed":
            self.fusion: nn.Module = FixedFusion(weight=config.fixed_weight)
        elif config.fusion == "attention":
            self.fusion = AttentionFusion(
                channels=channels, pooled=backbone.pooled_width, layers=config.fusion_layers,
                heads=config.fusion_heads, mlp_width=config.fusion_mlp_width, dropout=config.fusion_dropout,
                weight=config.fusion_weight,
            )  # fmt: skip
        self.config = config

    def forward(self, frames: Tensor) -> Tensor:
        features = self.backbone(frames)
        if not self.config.arl:
            logits: Tensor = self.whole(self.backbone.pooled(features))
            return logits
        related, related_logits = self.arl(self._regions(features))
        if self.config.fusion == "none":
            return related_logits
        whole = self.backbone.pooled(features)
        return fuse(self.fusion(whole, related), related_logits, self.whole(whole))

    def region_map(self, frames: Tensor) -> Tensor:
        """Return the attention map of the AU branch: (B, h, w), in (0, 1).

        Raises:
            ConfigError: the model has no LRP.
        """
        if not self.config.lrp:
            raise ConfigError("this model has no region map: it was trained with model.lrp=false")
        attention: Tensor = self.lrp.attention(self.backbone(frames))
        return attention[:, 0]

    def relation_graph(self, frames: Tensor) -> Tensor:
        """Return the relation graph Â (B, 12, 12): row i contains the weights of the AUs that are mixed into AU i.

        Raises:
            ConfigError: the model has no ARL.
        """
        if not self.config.arl:
            raise ConfigError("this model has no relation graph: it was trained with model.arl=false")
        graph: Tensor = self.arl.graph(self.arl.nodes(self._regions(self.backbone(frames))))
        return graph

    def _regions(self, features: Tensor) -> Tensor:
        regions: Tensor = self.lrp(features) if self.config.lrp else features
        return regions


def uses_whole_face(config: RegionRelationConfig) -> bool:
    """Return whether the backbone's own vector is used: alone, or fused with the AU branch."""
    return not config.arl or config.fusion != "none"


def build(config: RegionRelationConfig, inputs: InputSpec) -> System:
    """Return the system with random weights for inputs of that size."""
    backbone = make(config.backbone, inputs.size_px, dropout=config.dropout_fc, map_only=not uses_whole_face(config))
    return System(encoder=RegionRelationEncoder(config=config, backbone=backbone), head=LogitsHead({"au": N_AUS}))
