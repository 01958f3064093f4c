"""Batch-norm statistics for networks with random weights."""

import torch
from torch import nn


def settle(encoder: nn.Module, size_px: int) -> None:
    """Set batch-norm statistics that fit random weights, because without them a hundred layers overflow."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the plain average
        norm.reset_running_stats()
    with torch.no_grad():
        encoder.train()(torch.rand(4, 3, size_px, size_px))
    for norm in norms:
        norm.momentum = 0.1
