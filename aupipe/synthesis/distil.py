"""Distillation: one network learns the mean logits of several on crops of rendered faces.

It costs what one teacher costs. It learns their logits, not labels, and from pictures that are distorted more often
than theirs were, so that it agrees with them on pictures that are unlike rendered ones too (Hinton, Vinyals and Dean:
Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from aupipe import facs
from aupipe.synthesis.crop_training import train
from aupipe.synthesis.rendered_crops import DISTORTIONS, Crops, View

_DISTORTIONS = DISTORTIONS.model_copy(update={"filter": 0.9})
# These are learned from the last teacher alone, the one that has seen fewest rendered faces: on real faces, its scores
# of them agree best with an independent model.
_OF_THE_LAST = ("AU01", "AU02")


def distil(
    student: nn.Module,
    teachers: Sequence[nn.Module],
    crops: Crops,
    view: View,
    *,
    steps: int,
    seed: int,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Train a network (B, 3, H, W) → logits (B, 12) to have the mean logits of the teachers, or those of the last."""
    is_last = torch.tensor([au in _OF_THE_LAST for au in facs.AUS])
    for teacher in teachers:
        teacher.eval().to(memory_format=torch.channels_last)

    def losses(images: Tensor, _: Tensor, chosen: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        with torch.no_grad():
            logits = torch.stack([teacher(images) for teacher in teachers])
            learned = torch.where(is_last, logits[-1], logits.mean(dim=0))
        return {"of logits": (student(images) - learned).square().mean()}

    train(student, crops, view, losses, steps=steps, seed=seed, distortions=_DISTORTIONS, report=report)
