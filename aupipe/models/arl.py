"""Action-unit relationship learning (ARL): one feature per AU, a graph of the most similar, one layer over the graph.

Yu et al. (ABAW5, CVPR workshops 2023) adopt it from the first stage of Luo et al.: Learning Multi-dimensional Edge
Feature-based AU Relation Graph (IJCAI 2022), whose code (CVI-SZU/ME-GraphAU) defines normalization and initial weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from aupipe.models.interfaces import N_AUS


class NodeFeatures(nn.Module):
    """Map (B, C, h, w) → v (B, 12, C): v_i = mean over locations of ReLU(BN(W_i F + b_i))."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        # The twelve linear layers and their batch norms are concatenated: AU i has channels i·C … (i+1)·C − 1.
        self.project = nn.Conv2d(channels, N_AUS * channels, kernel_size=1)
        self.norm = nn.BatchNorm2d(N_AUS * channels)
        nn.init.normal_(self.project.weight, std=(2 / channels) ** 0.5)

    def forward(self, features: Tensor) -> Tensor:
        per_location = self.norm(self.project(features)).relu()
        return per_location.mean(dim=(-2, -1)).unflatten(-1, (N_AUS, -1))


class FaceGraph(nn.Module):
    """The directed graph of a face: every AU points to the AUs with the most similar features.

    Args:
        neighbors: K.
        count_self: an AU is a candidate for its own neighbor (as in Luo et al.'s code); otherwise K others are.
    """

    def __init__(self, *, neighbors: int, count_self: bool) -> None:
        super().__init__()
        self.neighbors = neighbors
        self.count_self = count_self

    @torch.no_grad()
    def forward(self, nodes: Tensor) -> Tensor:
        """Return Â = D^−½ A D^−½ (B, 12, 12) float32 for v (B, 12, C); ties can give more than K neighbors."""
        with torch.autocast(nodes.device.type, enabled=False):  # half precision would decide near ties by rounding
            nodes = nodes.float()
            similarity = nodes @ nodes.mT
            if not self.count_self:
                own = torch.eye(similarity.shape[-1], dtype=torch.bool, device=similarity.device)
                similarity = similarity.masked_fill(own, -torch.inf)
            threshold = similarity.topk(self.neighbors, dim=-1).values[..., -1:]
            adjacency = (similarity >= threshold).float()
            scale = adjacency.sum(dim=-1).rsqrt()
            return scale[..., :, None] * adjacency * scale[..., None, :]


class GraphLayer(nn.Module):
    """v'_i = ReLU(v_i + BN(Â v W_v + v W_u)_i); BN has one scale per node, with statistics also over channels."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.neighbor = nn.Linear(channels, channels)
        self.own = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm1d(N_AUS)
        for layer in (self.neighbor, self.own):
            nn.init.normal_(layer.weight, std=(2 / channels) ** 0.5)

    def forward(self, nodes: Tensor, graph: Tensor) -> Tensor:
        mixed = graph.to(nodes.dtype) @ self.neighbor(nodes) + self.own(nodes)
        out: Tensor = (nodes + self.norm(mixed)).relu()
        return out


class ARL(nn.Module):
    """Map (B, C, h, w) → AU features v' (B, 12, C) and AU logits (B, 12).

    Args:
        output: shared: one linear layer over all concatenated features (the paper); per_node: each AU from its own.
    """

    def __init__(
        self, *, channels: int, neighbors: int, count_self: bool, output: Literal["shared", "per_node"]
    ) -> None:
        super().__init__()
        self.nodes = NodeFeatures(channels=channels)
        self.graph = FaceGraph(neighbors=neighbors, count_self=count_self)
        self.layer = GraphLayer(channels=channels)
        if output == "shared":
            self.predict = nn.Sequential(nn.Flatten(), nn.Linear(N_AUS * channels, N_AUS))
        else:
            own = nn.Conv1d(N_AUS, N_AUS, kernel_size=channels, groups=N_AUS)  # twelve linear layers, C → 1
            self.predict = nn.Sequential(own, nn.Flatten())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        nodes = self.nodes(features)
        related = self.layer(nodes, self.graph(nodes))
        return related, self.predict(related)
