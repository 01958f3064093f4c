"""Default models: their folders in the package, and the notice printed when they are used without --checkpoint."""

from __future__ import annotations

from pathlib import Path

import aupipe
from aupipe.models import checkpoint

_WEIGHTS = Path(aupipe.__file__).parent / "weights" / "starter"
# The first reads AUs from points of the face and from the picture, the second from a closer crop of the mirror image;
# the mean of both is more reliable than either.
SINGLE_NETWORK = str(_WEIGHTS / "core")
FOLDERS = (str(_WEIGHTS / "geometry"), SINGLE_NETWORK)


def notice() -> str:
    """Return one line with the names of the default models and their limits."""
    cards = [checkpoint.load_card(folder) for folder in FOLDERS]
    names = " and ".join(card.sha256[:12] for card in cards)
    return f"no --checkpoint: aupipe's starter models {names}, {cards[0].training.limits}"
