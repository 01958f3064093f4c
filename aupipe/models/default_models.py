"""The models in the package: their folders, and the notice printed when one is used without --checkpoint."""

from __future__ import annotations

from pathlib import Path

import aupipe
from aupipe.models import checkpoint

STARTER = "starter"  # names the models of `FOLDERS`; a folder of that name is ./starter
_WEIGHTS = Path(aupipe.__file__).parent / "weights" / "starter"
FOLDERS = (str(_WEIGHTS / "geometry"),)  # of the models that predict unless others are named
SINGLE_NETWORK = str(_WEIGHTS / "core")  # whose weights a network of a recipe can begin with
OWN = (*FOLDERS, SINGLE_NETWORK)


def notice() -> str:
    """Return one line with the names of the default models and their limits."""
    cards = [checkpoint.load_card(folder) for folder in FOLDERS]
    names = " and ".join(card.sha256[:12] for card in cards)
    return f"no --checkpoint: {names} of aupipe's starter models, {cards[0].training.limits}"
