"""Embeddings that can be stored: they have the same bits whenever they are made, and a name for what made them."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from aupipe.config import Section
from aupipe.models.interfaces import FrameEncoder

_PLAIN = (bool, int, float, str, Section)


@torch.no_grad()
def embed(encoder: FrameEncoder, images: Tensor, batch: int) -> Tensor:
    """Embeddings (N, E) of images (N, 3, H, W), normalized; leaves eval mode on.

    In full precision and in batches of one shape, the last one filled up with its own images: on one kind of processor
    an image's embedding has the same bits whenever it is made and in whatever company, so it can as well be stored.
    """
    encoder.eval()
    if not len(images):
        return torch.zeros(0, encoder.embed_dim, device=images.device)
    found = []
    with torch.autocast(images.device.type, enabled=False):
        for part in images.split(batch):
            filled = part[torch.arange(batch, device=part.device) % len(part)]
            found.append(encoder(filled)[: len(part)])
    return torch.cat(found)


def encoder_sha256(encoder: FrameEncoder) -> str:
    """Names what an encoder does: its weights, and kind and settings of each of its modules.

    The configuration of its system would tell encoders apart that differ in nothing but the head behind them.
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
