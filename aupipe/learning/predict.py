"""What a system says of tracks of a store: probabilities, the same whatever else is predicted along with them."""

from __future__ import annotations

import numpy as np
import torch

from aupipe.learning.crops import CropReader
from aupipe.learning.metrics import Floats, Ints
from aupipe.learning.samples import Tracks
from aupipe.learning.sounds import Sounds
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.models.windows import run_head

PREDICT_BATCH = 64  # fixed: a row's result must not depend on what else is predicted


@torch.no_grad()
def predict(
    system: System, inputs: InputSpec, reader: CropReader, sounds: Sounds, tracks: Tracks, device: torch.device,
    overlap: float,
) -> dict[str, Floats]:  # fmt: skip
    """Probabilities {"au": (R, 12), "expr": (R, C)}, as far as the system has them; leaves eval mode on.

    Args:
        overlap: of the windows of a system that looks over time.
    """
    features = encode(system, inputs, reader, tracks.rows, device).to(device)
    found: dict[str, list[torch.Tensor]] = {}
    for number, video in enumerate(tracks.videos):
        span = slice(*tracks.edges[number : number + 2].tolist())
        mel, column = None, None
        if system.head.hears:
            sound = sounds.of(video)
            mel, column = sound.mel, sound.columns(tracks.time_s[span])
        outputs = run_head(
            system.head, features[span], tracks.time_s[span], overlap=overlap, mel=mel, column=column
        )  # fmt: skip
        for name, values in outputs.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy().astype(np.float64) for name, values in found.items()}


@torch.no_grad()
def encode(system: System, inputs: InputSpec, reader: CropReader, rows: Ints, device: torch.device) -> torch.Tensor:
    """Embeddings (N, E) of rows (N,), in batches of a fixed size, in full precision; leaves eval mode on."""
    system.eval()
    result = torch.empty(len(rows), system.encoder.width)
    for start in range(0, len(rows), PREDICT_BATCH):
        chosen = rows[start : start + PREDICT_BATCH]
        crops = reader.read(np.resize(chosen, PREDICT_BATCH))  # the last batch is filled up with its own rows
        found = system.encoder(inputs.prepare(crops.to(device)))[: len(chosen)]
        result[start : start + PREDICT_BATCH] = found.cpu()
    return result
