"""Post-norm transformer blocks with masks, as in Tallec et al. (ABAW3, 2022), eq. 1-7.

A mask Δ (queries, keys) is boolean; Δ[i, j] = true means that query i does not attend to key j. A fully masked query
has attention 0, never NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FORBIDDEN = -1e9  # added to a masked score; finite, so that the gradient of a fully masked row is not NaN
LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (eq. 1-3).

    Args:
        inner: total width of all heads; default: d.
        bias: whether the projections have a bias.
    """

    def __init__(self, *, width: int, heads: int, inner: int | None = None, bias: bool = True) -> None:
        super().__init__()
        inner = inner or width
        self.heads = heads
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(width, inner, bias=bias)
        self.value = nn.Linear(width, inner, bias=bias)
        self.output = nn.Linear(inner, width, bias=bias)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend from queries (B, Q, d) to keys (B, K, d).

        Args:
            mask: Δ, bool, (Q, K) or (B, Q, K).

        Returns:
            (B, Q, d) and the attention (B, heads, Q, K).
        """
        q, k, v = self._split(self.query(queries)), self._split(self.key(keys)), self._split(self.value(keys))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            mask = mask[None, None] if mask.dim() == 2 else mask[:, None]
            scores = scores + mask.to(scores.dtype) * FORBIDDEN
        attention = torch.softmax(scores, dim=-1)
        if mask is not None:
            attention = attention * ~mask.all(dim=-1, keepdim=True)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        return self.output(mixed), attention

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, S, d / heads)


class Mlp(nn.Module):
    """Dense with GELU, dropout, dense, dropout (eq. 4)."""

    def __init__(self, *, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(nn.functional.gelu(self.inner(x)))
        return self.dropout(self.outer(inner))


class AttentionStep(nn.Module):
    """LN[queries + D(attention(queries, keys))] (eq. 5 and 6)."""

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width=width, heads=heads)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mixed, attention = self.attention(queries, keys, mask)
        return self.norm(queries + self.dropout(mixed)), attention


class MlpStep(nn.Module):
    """LN[x + MLP(x)] (eq. 7)."""

    def __init__(self, *, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mlp = Mlp(width=width, hidden=hidden, dropout=dropout)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.mlp(x))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then MLP, over tokens (B, S, d)."""

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = AttentionStep(width=width, heads=heads, dropout=dropout)
        self.mlp = MlpStep(width=width, hidden=hidden, dropout=dropout)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens, _ = self.self_attention(tokens, tokens, mask)
        out: Tensor = self.mlp(tokens)
        return out


class DecoderLayer(nn.Module):
    """Self-attention of label tokens, cross-attention to the image tokens, and an MLP (eq. 5-7).

    With `two_mlps` an MLP also follows the self-attention, as in the authors' code (the paper has one per layer).
    """

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float, two_mlps: bool) -> None:
        super().__init__()
        self.self_attention = AttentionStep(width=width, heads=heads, dropout=dropout)
        self.self_mlp = MlpStep(width=width, hidden=hidden, dropout=dropout) if two_mlps else nn.Identity()
        self.cross_attention = AttentionStep(width=width, heads=heads, dropout=dropout)
        self.mlp = MlpStep(width=width, hidden=hidden, dropout=dropout)

    def forward(
        self, labels: Tensor, image: Tensor, label_mask: Tensor | None = None, image_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map labels (B, T, d), image (B, S, d) to labels (B, T, d) and attention over the image (B, heads, T, S)."""
        labels, _ = self.self_attention(labels, labels, label_mask)
        labels = self.self_mlp(labels)
        labels, attention = self.cross_attention(labels, image, image_mask)
        return self.mlp(labels), attention
