"""Video transformer: tokens of a CNN, attention within each frame, then over the frames of a clip.

Tu et al.: Prompt Tuning for Facial Action Unit Detection in the Wild (2023), on the "factorized encoder" of Arnab et
al.: ViViT (ICCV 2021). Heads and initialization, which the paper leaves open, are those of its lab's published code
(th2l/Affwild2-ABAW3-ActionUnit).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aupipe.errors import ConfigError
from aupipe.models.backbone import Backbone, make
from aupipe.models.configs import PromptConfig, VideoTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, FrameEncoder, SequenceBatch, SequenceHead, System
from aupipe.models.prenorm import PreNormLayer
from aupipe.models.prompts import PromptedLayers
from aupipe.models.transformer import LAYER_NORM_EPS


class Spatial(nn.Module):
    """A frame's tokens (N, m, C) → one vector (N, d): that of a CLS token, or the mean if there are no layers."""

    def __init__(self, *, config: VideoTransformerConfig, tokens: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Identity() if channels == config.width else nn.Linear(channels, config.width)
        self.layers: PromptedLayers | None = None
        if config.spatial_layers:
            prompted = config.prompts if config.prompts and config.prompts.spatial else None
            self.cls = nn.Parameter(0.02 * torch.randn(config.width))
            self.position = nn.Parameter(0.02 * torch.randn(tokens, config.width))
            self.layers = _layers(config, config.spatial_layers, prompted, channels)
            self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.project(tokens)
        if self.layers is None:
            return tokens.mean(dim=1)
        cls = self.cls.expand(tokens.shape[0], 1, -1)
        out: Tensor = self.norm(self.layers(torch.cat([cls, tokens + self.position], dim=1))[:, 0])
        return out


class Temporal(nn.Module):
    """Frames (B, S, d) and `mask` (B, S), false for padding → vectors of the clip (B, d) and frames (B, S, d)."""

    def __init__(self, *, config: VideoTransformerConfig, fan_in: int) -> None:
        super().__init__()
        prompted = config.prompts if config.prompts and config.prompts.temporal else None
        self.cls = nn.Parameter(0.02 * torch.randn(config.width))
        self.position = nn.Parameter(0.02 * torch.randn(config.clip_frames, config.width))
        self.layers = _layers(config, config.temporal_layers, prompted, fan_in)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        cls = self.cls.expand(frames.shape[0], 1, -1)
        tokens = torch.cat([cls, frames + self.positions(frames.shape[1])], dim=1)
        present = torch.cat([mask.new_ones(mask.shape[0], 1), mask], dim=1)
        tokens = self.norm(self.layers(tokens, present))
        return tokens[:, 0], tokens[:, 1:]

    def positions(self, length: int) -> Tensor:
        """Return positions (length, d): the first ones for a shorter clip, interpolated for a longer one."""
        if length <= len(self.position):
            return self.position[:length]
        return functional.interpolate(self.position.T[None], size=length, mode="linear", align_corners=True)[0].T


class VideoEncoder(FrameEncoder):
    """Frames (B, 3, H, W) → concatenated CNN tokens (B, m · C), or with `spatial` one vector per frame (B, d)."""

    def __init__(self, *, backbone: Backbone, grid: tuple[int, int], spatial: Spatial | None, width: int) -> None:
        super().__init__()
        self.backbone, self.grid, self.spatial, self.embed_dim = backbone, grid, spatial, width

    def forward(self, frames: Tensor) -> Tensor:
        tokens = functional.adaptive_avg_pool2d(self.backbone(frames), self.grid).flatten(2).transpose(1, 2)
        return tokens.flatten(1) if self.spatial is None else self.spatial(tokens)


class VideoHead(SequenceHead):
    """Embeddings of `VideoEncoder` of S frames → {"au": (B, S, 12)}, with `spatial` if the encoder has none."""

    def __init__(
        self, *, config: VideoTransformerConfig, spatial: Spatial | None, tokens: int, temporal: Temporal
    ) -> None:
        super().__init__()
        self.window_length = config.clip_frames
        self.tokens, self.spatial, self.temporal = tokens, spatial, temporal
        self.with_cls = config.head == "with_cls"
        self.predict = nn.Linear(config.width * (1 + self.with_cls), N_AUS)

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        features = batch.features
        if self.spatial is not None:
            tokens = features.flatten(0, 1).unflatten(-1, (self.tokens, -1))
            features = self.spatial(tokens).unflatten(0, batch.mask.shape)
        clip, frames = self.temporal(features, batch.mask)
        if self.with_cls:
            frames = torch.cat([frames, clip[:, None].expand_as(frames)], dim=-1)
        return {"au": self.predict(frames)}


def build(config: VideoTransformerConfig, inputs: InputSpec) -> System:
    """Return the system with random weights for inputs of that size.

    Raises:
        ConfigError: the backbone's map is smaller than `token_grid`.
    """
    backbone = make(config.backbone, inputs.size_px, map_only=True)
    rows, columns = config.token_grid
    if rows > backbone.grid[0] or columns > backbone.grid[1]:
        raise ConfigError(
            f"model.token_grid: {rows}×{columns} tokens, but {backbone.name} has a map of "
            f"{backbone.grid[0]}×{backbone.grid[1]} at input.size_px={inputs.size_px}; use fewer"
        )
    tokens, channels = rows * columns, backbone.channels
    spatial = Spatial(config=config, tokens=tokens, channels=channels)
    temporal = Temporal(config=config, fan_in=channels)
    inside, outside = (spatial, None) if config.cut == "spatial" else (None, spatial)
    width = config.width if inside else tokens * channels
    encoder = VideoEncoder(backbone=backbone, grid=config.token_grid, spatial=inside, width=width)
    head = VideoHead(config=config, spatial=outside, tokens=tokens, temporal=temporal)
    for part in (spatial, head):
        _initialize(part, config.init_std)
    return System(encoder=encoder, head=head)


def _layers(config: VideoTransformerConfig, count: int, prompts: PromptConfig | None, fan_in: int) -> PromptedLayers:
    layers = (
        PreNormLayer(width=config.width, heads=config.heads, hidden=config.mlp_width, dropout=config.dropout)
        for _ in range(count)
    )
    return PromptedLayers(layers, config=prompts, width=config.width, fan_in=fan_in)


def _initialize(part: nn.Module, std: float) -> None:
    for module in part.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
