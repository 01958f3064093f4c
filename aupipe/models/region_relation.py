"""Local region perception, AU relationships and feature fusion over a face-recognition network.

Yu et al.: Local Region Perception and Relationship Learning Combined with Feature Fusion for Facial Action Unit
Detection (ABAW5, CVPR workshops 2023). The rows of its ablation (table 2) are settings: 1-3 arl=false lrp=false
fusion=none; 4 arl=true; 5 also lrp=true; 6 also fusion=attention (or fixed).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from aupipe.config import Section
from aupipe.errors import ConfigError
from aupipe.models.arl import ARL
from aupipe.models.backbone import Backbone, make
from aupipe.models.fusion import AttentionFusion, FixedFusion, fuse
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, FrameEncoder, LogitsHead, System
from aupipe.models.lrp import LRP


class RegionRelationConfig(Section):
    name: Literal["region_relation"] = "region_relation"
    backbone: str = "iresnet100"  # any name of `backbone.make`
    dropout_fc: float = Field(default=0.6, ge=0, lt=1)  # before the backbone's embedding
    lrp: bool = True  # Use local region perception (LRP); requires arl.
    branches: int = Field(default=4, ge=1)  # Branches of LRP.
    reduction: int = Field(default=16, ge=1)  # Factor by which LRP reduces the channels.
    arl: bool = True  # Use the AU relation branch (ARL).
    neighbors: int = Field(default=4, ge=1, le=N_AUS)  # K
    count_self: bool = True  # an AU counts among its own K
    # shared: one linear layer over the features of all AUs (paper); per_node: each AU from its own features.
    output: Literal["shared", "per_node"] = "shared"
    fusion: Literal["none", "fixed", "attention"] = "attention"  # Combination of the AU branch and the global branch.
    fixed_weight: float = Field(default=0.5, ge=0, le=1)  # of the AU branch
    fusion_layers: int = Field(default=2, ge=1)  # Transformer layers of fusion=attention.
    fusion_heads: int = Field(default=8, ge=1)  # Attention heads of fusion=attention.
    fusion_mlp_width: int = Field(default=2048, ge=8)  # Width of the MLP of fusion=attention.
    fusion_dropout: float = Field(default=0.1, ge=0, lt=1)  # Dropout probability of fusion=attention.
    # pair: one pair of branch weights per frame; per_au: one pair per AU.
    fusion_weight: Literal["pair", "per_au"] = "pair"

    @model_validator(mode="after")
    def _branches_exist(self) -> RegionRelationConfig:
        if self.lrp and not self.arl:
            raise ValueError("lrp=true without arl=true: nothing would use the regions; set arl=true or lrp=false")
        if self.fusion != "none" and not self.arl:
            raise ValueError(
                f"fusion={self.fusion} without arl=true: there is one branch only; set arl=true or fusion=none"
            )
        if self.neighbors == N_AUS and not self.count_self:
            raise ValueError(f"neighbors={N_AUS} without count_self=true: there are {N_AUS - 1} others")
        return self


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
