"""The model that comes with the package: where it lies, and what to say when it is used unasked."""

from __future__ import annotations

from pathlib import Path

import aupipe
from aupipe.models import checkpoint

FOLDER = str(Path(aupipe.__file__).parent / "weights" / "starter")


def notice() -> str:
    """One line: which model, and its limits."""
    card = checkpoint.load_card(FOLDER)
    return f"no --checkpoint: aupipe's starter model {card.sha256[:12]}, {card.training.limits}"
