"""Multi-modal multi-task system: face crops and audio, with a transformer over 30 frames.

Jin et al.: A Multi-modal and Multi-task Learning Method for Action Unit and Expression Recognition (ABAW2, 2021), in
three steps that `stage` selects; details that the paper leaves open follow cheersking/ABAW2-CPICDIR2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aupipe.models.backbone import Backbone, make
from aupipe.models.configs import MultimodalConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder, SequenceBatch, SequenceHead, System, on_frames
from aupipe.models.tdnn import NETWORKS
from aupipe.models.transformer import LAYER_NORM_EPS, Attention

_STRETCHED_COLUMNS = 100  # of audio.align=interp


class EmbeddingEncoder(FrameEncoder):
    """Frames (B, 3, H, W) → the backbone's embedding (B, E), not normalized to length 1."""

    def __init__(self, *, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.embed_dim = backbone, backbone.pooled_width

    def forward(self, frames: Tensor) -> Tensor:
        return self.backbone.pooled(self.backbone(frames))


class Outputs(nn.ModuleDict):
    """Linear layers (…, width) → {"au": (…, 12)[, "expr": (…, C)]}."""

    def __init__(self, width: int, sizes: dict[str, int]) -> None:
        super().__init__({name: nn.Linear(width, size) for name, size in sizes.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: layer(x) for name, layer in self.items()}


class VisualHead(SequenceHead):
    """Step 1: one linear layer per task on the embedding."""

    def __init__(self, *, width: int, sizes: dict[str, int]) -> None:
        super().__init__()
        self.visual = Outputs(width, sizes)

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.visual(batch.features)
        return out


class TdnnHead(SequenceHead):
    """Base of heads with a time-delay network, whose vector at a frame's column is the frame's audio feature."""

    uses_audio = True

    def __init__(self, *, config: MultimodalConfig) -> None:
        super().__init__()
        self.window_length = config.sequence.frames
        self.audio_width = config.audio.width
        self.stretched = config.audio.align == "interp"
        self.tdnn = NETWORKS[config.audio.tdnn](width=config.audio.width)

    def audio_features(self, batch: SequenceBatch) -> Tensor:
        """Return audio features (B, S, audio width); zeros for frames without audio."""
        silence = batch.features.new_zeros(*batch.mask.shape, self.audio_width)
        mel, column = batch.mel, batch.column
        if mel is None or column is None or not mel.shape[-1]:
            return silence
        if self.stretched:
            mel, place = _stretched(mel, column, batch.mask)
        else:
            place = column.clamp(min=0)
        vectors = self.tdnn(mel).transpose(1, 2)  # (B, M, audio width)
        at_frames = vectors.gather(1, place[..., None].expand(-1, -1, self.audio_width))
        return torch.where(column[..., None] >= 0, at_frames, silence)


class AudioHead(TdnnHead):
    """Step 2: one linear layer per task on a frame's embedding and audio feature, or on the audio feature only."""

    def __init__(self, *, config: MultimodalConfig, width: int) -> None:
        super().__init__(config=config)
        self.uses_video = config.uses_video
        self.joint = Outputs(config.audio.width + width * config.uses_video, config.sizes)

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        audio = self.audio_features(batch)
        out: dict[str, Tensor] = self.joint(torch.cat([batch.features, audio], dim=-1) if self.uses_video else audio)
        return out


class TransformerHead(TdnnHead):
    """Step 3: one post-norm transformer layer over embeddings and audio features, then outputs per frame."""

    def __init__(self, *, config: MultimodalConfig, width: int) -> None:
        super().__init__(config=config)
        sizes, width = config.sequence, config.audio.width + width
        self.dropout = nn.Dropout(sizes.dropout)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = Attention(width=width, heads=sizes.heads, inner=sizes.heads * sizes.head_width, bias=False)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, sizes.mlp_width), nn.ReLU(), nn.Linear(sizes.mlp_width, width))
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.hidden = nn.Sequential(nn.Linear(width, sizes.hidden), nn.BatchNorm1d(sizes.hidden), nn.ReLU())
        self.sequence = Outputs(sizes.hidden, config.sizes)

    def forward(self, batch: SequenceBatch) -> dict[str, Tensor]:
        x = torch.cat([batch.features, self.audio_features(batch)], dim=-1)
        x = self.norm(self.dropout(x + sinusoid(x.shape[1], x.shape[2]).to(x)))
        padding = ~batch.mask[:, None].expand(-1, x.shape[1], -1)
        x = self.attention_norm(x + self.dropout(self.attention(x, x, padding)[0]))
        x = self.mlp_norm(x + self.dropout(self.mlp(x)))
        out: dict[str, Tensor] = self.sequence(on_frames(self.hidden, x, batch.mask))
        return out


def _stretched(mel: Tensor, column: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch the spectrogram between the first and the last frame of each window, as the authors' code does.

    Args:
        mel: (B, 64, M).
        column: (B, S) of the frames, −1 without audio.
        mask: (B, S) False for padding.

    Returns:
        The nearest columns (B, 64, 100), and the place (B, S) of each frame in them if frames were evenly spaced.
    """
    heard = (column >= 0) & mask
    first = column.masked_fill(~heard, mel.shape[-1]).amin(dim=1, keepdim=True)
    last = column.masked_fill(~heard, 0).amax(dim=1, keepdim=True)
    steps = torch.arange(_STRETCHED_COLUMNS, device=mel.device)
    chosen = (first + (last + 1 - first) * steps // _STRETCHED_COLUMNS).clamp(0, mel.shape[-1] - 1)
    stretched = mel.gather(2, chosen[:, None].expand(-1, mel.shape[1], -1))
    frames = mask.sum(dim=1, keepdim=True).clamp(min=1)
    place = torch.arange(mask.shape[1], device=mel.device) * _STRETCHED_COLUMNS // frames
    return stretched, place.clamp(max=_STRETCHED_COLUMNS - 1)


def sinusoid(length: int, width: int) -> Tensor:
    """Return position encodings (length, width), sin and cos interleaved.

    Vaswani et al.: Attention Is All You Need (NeurIPS 2017).
    """
    rate = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def build(config: MultimodalConfig, inputs: InputSpec) -> System:
    """Return the system of that step with random weights for inputs of that size."""
    encoder = EmbeddingEncoder(backbone=make(config.backbone, inputs.size_px, dropout=config.dropout))
    if config.stage == "visual":
        return System(encoder=encoder, head=VisualHead(width=encoder.embed_dim, sizes=config.sizes))
    head = AudioHead if config.stage == "audio" else TransformerHead
    return System(encoder=encoder, head=head(config=config, width=encoder.embed_dim))
