"""Deep visual prompts: learned tokens that are input to one transformer layer each and dropped after it.

Jia et al.: Visual Prompt Tuning (ECCV 2022), "deep"; for action units Tu et al.: Prompt Tuning for Facial Action Unit
Detection in the Wild (2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from aupipe.models.configs import PromptConfig


class PromptedLayers(nn.Sequential):
    """Sequential layers over tokens (B, S, d), each with its own prompts.

    The input of layer i is [first tokens; dropout(P_i); other tokens], and its outputs for the prompts are dropped. The
    layers have the same names as in a `Sequential`, so weights trained without prompts fit. The dropout follows this
    module's own mode, even if the layers are frozen in eval mode.

    Attributes:
        prompts: (layers, length, d), without positions; None if length is 0.
    """

    prompts: nn.Parameter | None

    def __init__(
        self, layers: Iterable[nn.Module], *, config: PromptConfig | None, width: int, fan_in: int, first: int = 1
    ) -> None:
        """
        Args:
            config: None: no prompts, only the layers.
            width: d.
            fan_in: number of input values per token; determines the initial range of prompts.
            first: tokens before the prompts: the CLS token, and in some networks registers.
        """
        super().__init__(*layers)
        self.first = first
        self.dropout = config.dropout if config else 0.0
        self.register_parameter("prompts", None)
        if config and config.length:
            bound = math.sqrt(6 / (fan_in + width))
            self.prompts = nn.Parameter(torch.empty(len(self), config.length, width).uniform_(-bound, bound))

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Apply the layers.

        Args:
            present: (B, S) bool, false for padding; passed to layers that accept it (see `prenorm`).
        """
        if self.prompts is not None and present is not None:
            prompted = present.new_ones(present.shape[0], self.prompts.shape[1])
            present = torch.cat([present[:, : self.first], prompted, present[:, self.first :]], dim=1)
        for number, layer in enumerate(self):
            tokens = self._insert(tokens, number)
            tokens = layer(tokens) if present is None else layer(tokens, present)
            tokens = self._drop(tokens)
        return tokens

    def _insert(self, tokens: Tensor, number: int) -> Tensor:
        if self.prompts is None:
            return tokens
        prompts = self.prompts[number].to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        prompts = functional.dropout(prompts, self.dropout, self.training)
        return torch.cat([tokens[:, : self.first], prompts, tokens[:, self.first :]], dim=1)

    def _drop(self, tokens: Tensor) -> Tensor:
        if self.prompts is None:
            return tokens
        return torch.cat([tokens[:, : self.first], tokens[:, self.first + self.prompts.shape[1] :]], dim=1)
