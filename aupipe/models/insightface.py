"""Published weights of face-recognition networks, as those of InsightFace: which network it is, and as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

import torch
from safetensors import torch as safetensors
from torch import Tensor

from aupipe.errors import CheckpointError
from aupipe.models import backbone, weights
from aupipe.storage import of_file

PUBLISHED = ("iresnet18", "iresnet34", "iresnet50", "iresnet100", "ir_se50")
SIZE_PX = 112  # of the crops that all of them were trained on; the embedding's layer depends on it
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def read(path: str) -> tuple[str, dict[str, Tensor]]:
    """The network's name in `backbone.make` and its state dict, float32, from a .pth or .safetensors file or URI.

    Raises:
        ConfigError: the file is not there.
        CheckpointError: it is not, key for key and shape for shape, one of `PUBLISHED`.
    """
    tensors = weights.read(path)
    name = recognize(tensors, where=path)
    return name, {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}


def recognize(tensors: Mapping[str, Tensor], *, where: str) -> str:
    """Which of `PUBLISHED` has exactly these tensors.

    Raises:
        CheckpointError: none; naming the nearest one and what does not fit.
    """
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    wanted = {name: _shapes(name) for name in PUBLISHED}
    nearest = min(PUBLISHED, key=lambda name: len(wanted[name].items() ^ found.items()))
    problems = [
        f"{key} is {found.get(key, 'missing')}, not {shape}"
        for key, shape in wanted[nearest].items()
        if found.get(key) != shape
    ]
    problems += [f"{key} is none of its tensors" for key in found if key not in wanted[nearest]]
    if problems:
        raise CheckpointError(
            f"{where} is none of {', '.join(PUBLISHED)} at {SIZE_PX} px; for {nearest}, the nearest, "
            f"{'; '.join(problems[:3])}{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}"
        )
    return nearest


def parameters(tensors: dict[str, Tensor]) -> int:
    """How many numbers were learnt: all but batch-norm statistics."""
    return sum(tensor.numel() for key, tensor in tensors.items() if not key.endswith(STATISTICS))


def write(path: str, name: str, tensors: dict[str, Tensor]) -> str:
    """Write the state dict as safetensors with the network's name in its metadata; returns the file's sha256."""
    # One entry only: the order of several is not fixed, and the same weights shall give the same bytes.
    data = safetensors.save({key: tensor.contiguous() for key, tensor in tensors.items()}, metadata={"network": name})
    folder, file = of_file(path)
    folder.write(file, data)
    return hashlib.sha256(data).hexdigest()


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = backbone.make(name, SIZE_PX).network
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
