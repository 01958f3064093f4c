"""Reproducible embeddings, which can be stored, and the hash that identifies their encoder."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from aupipe.config import Precision, Section
from aupipe.models.interfaces import FrameEncoder

_PLAIN = (bool, int, float, str, Section)


@torch.no_grad()
def embed(encoder: FrameEncoder, images: Tensor, batch: int, precision: Precision = "float32") -> Tensor:
    """Return embeddings (N, E) of normalized images (N, 3, H, W). The encoder is in eval mode afterwards.

    Images are encoded in batches of one fixed shape; the last batch is padded with its own images. On one type of
    processor, the bits of an embedding therefore do not depend on batch composition.
    """
    encoder.eval()
    if not len(images):
        return torch.zeros(0, encoder.embed_dim, device=images.device)
    found = []
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        for part in images.split(batch):
            padded = part[torch.arange(batch, device=part.device) % len(part)]
            found.append(encoder(padded)[: len(part)].float())
    return torch.cat(found)


def encoder_sha256(encoder: FrameEncoder) -> str:
    """Return a hash of an encoder's weights and of the type and settings of each of its modules.

    A hash of the system's configuration would differ between encoders that only have different heads.
    """
    digest = hashlib.sha256()
    for name, module in encoder.named_modules():
        settings = {key: value for key, value in vars(module).items() if key[0] != "_" and _is_plain(value)}
        del settings["training"]
        described = json.dumps([name, type(module).__qualname__, settings], sort_keys=True, default=Section.model_dump)
        digest.update(described.encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, _PLAIN)
