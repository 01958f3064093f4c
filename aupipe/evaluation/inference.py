"""What a system says of tracks of a store: probabilities, the same whatever else is predicted along with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aupipe.arrays import Floats, Ints
from aupipe.data.crop_reader import CropReader
from aupipe.data.mel_reader import LogMelCache
from aupipe.data.samples import Tracks
from aupipe.models.embedding import embed
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import FrameEncoder, SequenceHead
from aupipe.models.sliding_window import run_head

PREDICT_BATCH = 64  # fixed: a row's result must not depend on what else is predicted


def predict_tracks(
    head: SequenceHead, features: Tensor, sounds: LogMelCache, tracks: Tracks, overlap: float
) -> dict[str, Floats]:
    """Probabilities {"au": (R, 12), "expr": (R, C)}, as far as the head tells them; leaves eval mode on.

    Args:
        features: (R, E) embeddings of the tracks' rows, on the head's device.
        overlap: of the windows of a head that looks over time.
    """
    head.eval()
    found: dict[str, list[Tensor]] = {}
    for number, video in enumerate(tracks.videos):
        span = slice(*tracks.offsets[number : number + 2].tolist())
        mel, column = None, None
        if head.uses_audio:
            sound = sounds.of(video)
            mel, column = sound.mel, sound.columns(tracks.time_s[span])
        outputs = run_head(head, features[span], tracks.time_s[span], overlap=overlap, mel=mel, column=column)
        for name, values in outputs.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy().astype(np.float64) for name, values in found.items()}


def encode(
    encoder: FrameEncoder, inputs: InputSpec, reader: CropReader, rows: Ints, device: torch.device,
    distort: Callable[[Tensor, Ints], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Embeddings (N, E) of rows (N,), on the CPU; leaves eval mode on.

    Args:
        distort: changes images (64, 3, H, W) in 0..1, those of rows (64,), before they are normalized.
    """
    result = torch.empty(len(rows), encoder.embed_dim)
    for start in range(0, len(rows), PREDICT_BATCH):
        count = len(rows[start : start + PREDICT_BATCH])
        chosen = np.resize(rows[start : start + PREDICT_BATCH], PREDICT_BATCH)  # filled up with its own rows
        images = inputs.scale(reader.read(chosen).to(device))
        images = inputs.normalize(images if distort is None else distort(images, chosen))
        result[start : start + count] = embed(encoder, images, PREDICT_BATCH)[:count].cpu()
    return result
