"""What a system says of rows of a store: probabilities, the same whatever else is predicted along with them."""

from __future__ import annotations

import numpy as np
import torch

from aupipe.learning.crops import CropReader
from aupipe.learning.metrics import Floats, Ints
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.models.windows import run_head

PREDICT_BATCH = 64  # fixed: a row's result must not depend on what else is predicted


@torch.no_grad()
def predict(
    system: System, inputs: InputSpec, reader: CropReader, rows: Ints, edges: Ints, time_s: Floats,
    device: torch.device, overlap: float,
) -> dict[str, Floats]:  # fmt: skip
    """Probabilities {"au": (N, 12), "expr": (N, C)} of rows (N,), as far as the system has them; leaves eval mode on.

    Args:
        edges: of the tracks among the rows (see `sampling.track_edges`).
        time_s: (N,) media time of the rows.
        overlap: of the windows of a system that looks over time.
    """
    features = encode(system, inputs, reader, rows, device).to(device)
    found: dict[str, list[torch.Tensor]] = {}
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        outputs = run_head(system.head, features[start:end], time_s[start:end], overlap=overlap)
        for name, values in outputs.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy().astype(np.float64) for name, values in found.items()}


@torch.no_grad()
def encode(system: System, inputs: InputSpec, reader: CropReader, rows: Ints, device: torch.device) -> torch.Tensor:
    """Embeddings (N, E) of rows (N,), in batches of a fixed size, in full precision."""
    system.eval()
    result = torch.empty(len(rows), system.encoder.width)
    for start in range(0, len(rows), PREDICT_BATCH):
        chosen = rows[start : start + PREDICT_BATCH]
        crops = reader.read(np.resize(chosen, PREDICT_BATCH))  # the last batch is filled up with its own rows
        found = system.encoder(inputs.prepare(crops.to(device)))[: len(chosen)]
        result[start : start + PREDICT_BATCH] = found.cpu()
    return result
