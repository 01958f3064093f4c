"""When a stage has stalled. That a saved state comes back is in test_trainer.py."""

from __future__ import annotations

import pytest

from aupipe.training import state
from aupipe.training.state import Position

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("scores", "patience", "stalled"),
    [
        ([0.5, 0.4], None, False),
        ([], 2, False),
        ([0.5, 0.4], 2, False),  # no epoch before the last two
        ([0.5, 0.4, 0.3], 2, True),
        ([0.5, 0.4, 0.5], 2, True),  # as good is no improvement
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.6, 0.4], 2, False),
        ([0.9, 0.5, 0.6, 0.7], 2, True),  # better than the epoch before, but not than the best
        ([-3.0, -2.0, -2.5], 1, True),
    ],
)
def test_a_stage_has_stalled_if_no_late_epoch_is_the_best(
    scores: list[float], patience: int | None, stalled: bool
) -> None:
    position = Position(epochs=len(scores), history=[{"score": score} for score in scores])
    assert state.stalled(position, patience) == stalled
