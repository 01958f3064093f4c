"""A checkpoint of random weights, small enough to run on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import ModelConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage


def save_multimodal(folder: Path) -> None:
    """Save a temporal model of video and audio, so that every stage of an annotation has work."""
    model = TypeAdapter[Any](ModelConfig).validate_python({
        "name": "multimodal", "backbone": "iresnet_quick", "audio": {"width": 16},
        "sequence": {"frames": 10, "heads": 2, "head_width": 8, "mlp_width": 32, "hidden": 16},
    })  # fmt: skip
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    card = checkpoint.Card(model=model, input=InputSpec(size_px=64), template=template)
    torch.manual_seed(0)
    checkpoint.save(Storage(folder), build(card.model, card.input).eval(), card)
