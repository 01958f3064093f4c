"""Pre-norm transformer layer, as in Dosovitskiy et al. (ViT, ICLR 2021) and Arnab et al. (ViViT, ICCV 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from aupipe.models.transformer import LAYER_NORM_EPS, Mlp


class PreNormLayer(nn.Module):
    """u = x + attention(LN(x)); x' = u + MLP(LN(u)), the MLP with GELU. A stack of layers needs one LN after the last.

    Args:
        width: d, a multiple of `heads`.
        hidden: width of the MLP.
        dropout: of the attention's weights and output, and within the MLP.
    """

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width=width, hidden=hidden, dropout=dropout)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Map tokens (B, S, d) to (B, S, d).

        Args:
            present: (B, S) bool, false for padding tokens, which no token attends to. If all tokens are padding they
                attend to each other, so that no result is NaN.
        """
        mixed = tokens + self._attend(self.attention_norm(tokens), present)
        out: Tensor = mixed + self.mlp(self.mlp_norm(mixed))
        return out

    def _attend(self, tokens: Tensor, present: Tensor | None) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, S, d / heads)
        if present is not None:
            present = (present | ~present.any(dim=-1, keepdim=True))[:, None, None]
        dropout = self.dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=present, dropout_p=dropout)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out
