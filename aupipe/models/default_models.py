"""The models that come with the package: where they lie, and what to say when they are used unasked."""

from __future__ import annotations

from pathlib import Path

import aupipe
from aupipe.models import checkpoint

_WEIGHTS = Path(aupipe.__file__).parent / "weights" / "starter"
# One looks closer than the other; the mean of both is better than either.
FOLDERS = (str(_WEIGHTS / "close"), str(_WEIGHTS / "core"))


def notice() -> str:
    """One line: which models, and their limits."""
    cards = [checkpoint.load_card(folder) for folder in FOLDERS]
    names = " and ".join(card.sha256[:12] for card in cards)
    return f"no --checkpoint: aupipe's starter models {names}, {cards[0].training.limits}"
