"""Weight files: a state dict as safetensors or by torch.save. Code in a file is never executed."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from aupipe.errors import CheckpointError, ConfigError
from aupipe.storage import open_input

SUFFIX = ".safetensors"  # files with any other suffix are read as torch.save's
# The errors of the readers for files of any other content. The pickle machine of torch looks up what the bytes name.
_DAMAGE = (
    SafetensorError, pickle.UnpicklingError, struct.error, RuntimeError, ValueError, EOFError, LookupError, TypeError,
    AttributeError, AssertionError, OverflowError,
)  # fmt: skip


def read(path: str) -> dict[str, Tensor]:
    """Return name → tensor, on the CPU, from the file at `path` (or URI), or from a training checkpoint's `state_dict`.

    Raises:
        ConfigError: the file does not exist.
        CheckpointError: it contains anything but named tensors.
    """
    try:
        with open_input(path) as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from None
    try:
        loaded = safetensors.load(data) if path.endswith(SUFFIX) else _load(data)
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is damaged, or not a state dict with only tensors ({' '.join(str(error).split())[:200]}); "
            "rewrite it with torch.save(network.state_dict(), FILE) or as safetensors"
        ) from None
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointError(f"{path} contains no state dict: named tensors are needed")
    return dict(tensors)


def _load(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
