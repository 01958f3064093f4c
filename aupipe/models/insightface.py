"""Published weights of face-recognition networks, e.g. of InsightFace: recognition and conversion to safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

import torch
from safetensors import torch as safetensors
from torch import Tensor

from aupipe.errors import CheckpointError
from aupipe.models import backbone, weights
from aupipe.storage import folder_and_name

PUBLISHED = ("iresnet18", "iresnet34", "iresnet50", "iresnet100", "ir_se50")
SIZE_PX = 112  # size of their training crops; the embedding layer depends on it
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def read(path: str) -> tuple[str, dict[str, Tensor]]:
    """Read a .pth or .safetensors file or URI; return the name for `backbone.make` and the state dict in float32.

    Raises:
        ConfigError: the file does not exist.
        CheckpointError: its keys and shapes are not those of a network in `PUBLISHED`.
    """
    tensors = weights.read(path)
    name = recognize(tensors, where=path)
    return name, {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}


def recognize(tensors: Mapping[str, Tensor], *, where: str) -> str:
    """Return the name in `PUBLISHED` of the network with exactly these tensors.

    Raises:
        CheckpointError: there is none; the message names the nearest network and the differences.
    """
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    expected = {name: _shapes(name) for name in PUBLISHED}
    nearest = min(PUBLISHED, key=lambda name: len(expected[name].items() ^ found.items()))
    problems = [
        f"{key} is {found.get(key, 'missing')}, not {shape}"
        for key, shape in expected[nearest].items()
        if found.get(key) != shape
    ]
    problems += [f"{key} is none of its tensors" for key in found if key not in expected[nearest]]
    if problems:
        raise CheckpointError(
            f"{where} is none of {', '.join(PUBLISHED)} at {SIZE_PX} px; for {nearest}, the nearest, "
            f"{'; '.join(problems[:3])}{f' and {len(problems) - 3} more' if len(problems) > 3 else ''}"
        )
    return nearest


def parameters(tensors: dict[str, Tensor]) -> int:
    """Return the number of trained parameters, without batch-norm statistics."""
    return sum(tensor.numel() for key, tensor in tensors.items() if not key.endswith(STATISTICS))


def write(path: str, name: str, tensors: dict[str, Tensor]) -> str:
    """Write the state dict as safetensors with the network's name in its metadata; return the file's sha256."""
    # The metadata has one entry only: the order of several is not fixed, and equal weights must give equal bytes.
    data = safetensors.save({key: tensor.contiguous() for key, tensor in tensors.items()}, metadata={"network": name})
    folder, file = folder_and_name(path)
    folder.write(file, data)
    return hashlib.sha256(data).hexdigest()


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = backbone.make(name, SIZE_PX).network
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
