"""CosFace: (face embeddings (N, E), identities (N,) int64, −1 = unknown) → scalar."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aupipe.training.losses.masked import at_least_float32, masked_mean


class CosFace(nn.Module):
    """Softmax cross-entropy over s · cos θ with the margin m subtracted for the true class; mean over known rows.

    Wang et al.: CosFace (CVPR 2018), eq. 4. With `sample_rate` r < 1, each training step uses only the classes of the
    batch and random other classes, r · C in total: An et al.: Partial FC (ICCVW 2021).

    Attributes:
        centers: (C, E), trained.
    """

    def __init__(self, *, identities: int, width: int, scale: float, margin: float, sample_rate: float) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(identities, width) * 0.01)
        self.scale, self.margin, self.sample_rate = scale, margin, sample_rate

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        known, targets = targets >= 0, targets.clamp(min=0)
        centers: Tensor = self.centers
        if self.training and self.sample_rate < 1:
            chosen = self.sample(targets[known])
            centers, targets = centers[chosen], torch.searchsorted(chosen, targets).clamp(max=len(chosen) - 1)
        cosines = functional.linear(functional.normalize(at_least_float32(embeddings)), functional.normalize(centers))
        own = functional.one_hot(targets, len(centers)).to(cosines.dtype)
        logits = self.scale * (cosines.clamp(-1, 1) - self.margin * own)
        return masked_mean(functional.cross_entropy(logits, targets, reduction="none"), known)

    def sample(self, present: Tensor) -> Tensor:
        """Return the numbers of the classes to use, ascending: all that are `present`, and random others."""
        identities = len(self.centers)
        present = present.unique()
        draw = torch.rand(identities, device=self.centers.device)  # torch's own generator, seeded at each step
        draw[present] = 2  # above every draw
        count = max(int(self.sample_rate * identities), len(present), 1)
        return draw.topk(count).indices.sort().values
