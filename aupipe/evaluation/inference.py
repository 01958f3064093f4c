"""Predictions of a sequence head for tracks of a store. A track's probabilities do not depend on other tracks."""

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
    head: SequenceHead, features: Tensor, audio: LogMelCache, tracks: Tracks, overlap: float
) -> dict[str, Floats]:
    """Return probabilities {"au": (R, 12), "expr": (R, C)} for the outputs of the head, which is put in eval mode.

    Args:
        features: (R, E) embeddings of the tracks' rows, on the head's device.
        audio: spectrograms of the store, for a head that uses audio.
        overlap: of the windows of a temporal head.
    """
    head.eval()
    found: dict[str, list[Tensor]] = {}
    for number, video in enumerate(tracks.videos):
        span = slice(*tracks.offsets[number : number + 2].tolist())
        mel, column = None, None
        if head.uses_audio:
            log_mel = audio.of(video)
            mel, column = log_mel.mel, log_mel.columns(tracks.time_s[span])
        outputs = run_head(head, features[span], tracks.time_s[span], overlap=overlap, mel=mel, column=column)
        for name, values in outputs.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy().astype(np.float64) for name, values in found.items()}
