"""What a system says of tracks of a store: probabilities, the same whatever else is predicted along with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aupipe.arrays import Floats
from aupipe.data.readers import LogMelCache
from aupipe.data.samples import Tracks
from aupipe.models.interfaces import SequenceHead
from aupipe.models.sliding_window import run_head


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
