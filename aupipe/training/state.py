"""Training state on disk, from which a stopped run resumes: weights, optimizer and position.

It contains no generator state, because every step seeds all randomness from its position (see `trainer`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import nn

WEIGHTS, OPTIMIZER, POSITION = "model.safetensors", "optimizer.pt", "position.json"


@dataclass
class Position:
    """Progress of a stage."""

    epochs: int = 0  # completed epochs
    history: list[dict[str, Any]] = field(default_factory=list)  # the metrics of each
    step: int = 0  # completed steps of the current epoch …
    loss: float = 0.0  # … the sum of their losses …
    train_s: float = 0.0  # … and their duration


def stalled(position: Position, patience: int | None) -> bool:
    """Return whether none of the last `patience` epochs improved on the best score before them."""
    if patience is None or position.epochs <= patience:
        return False
    past = [line["score"] for line in position.history]
    return max(past[-patience:]) <= max(past[:-patience])


def save(folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Write weights, optimizer state and position."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learner.state_dict().items()}
    safetensors.save_file(tensors, folder / WEIGHTS)
    torch.save(optimizer.state_dict(), folder / OPTIMIZER)
    (folder / POSITION).write_text(json.dumps(asdict(position)))


def load(folder: Path, learner: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Restore weights and optimizer state; return the position."""
    load_weights(folder, learner)
    optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True))
    return read_position(folder)


def read_position(folder: Path) -> Position:
    return Position(**json.loads((folder / POSITION).read_text()))


def load_weights(folder: Path, learner: nn.Module) -> None:
    learner.load_state_dict(safetensors.load_file(folder / WEIGHTS), strict=True)


def load_system(folder: Path, system: nn.Module) -> None:
    """Load the weights of the system, without those of the losses."""
    tensors = safetensors.load_file(folder / WEIGHTS)
    system.load_state_dict({name: t for name, t in tensors.items() if not name.startswith("loss.")}, strict=True)
