"""Models that decide on the same rows together: by their mean probability, or each by itself and then by majority."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from aupipe.arrays import Bools, Floats
from aupipe.errors import ConfigError
from aupipe.evaluation.predictions import Predictions

EnsembleRule = Literal["mean", "vote"]
STAGES = ("raw_at_0.5", "with_thresholds", "with_thresholds_and_smoothing")


@dataclass(frozen=True)
class Member:
    """What one model says of N rows, and how it decides."""

    raw: Predictions
    thresholds: Floats  # (12,)
    radius: int  # frames of smoothing on either side


@dataclass(frozen=True)
class Decision:
    """Probabilities (of several models: their mean) and what is decided (N, 12)."""

    predictions: Predictions
    decided: Bools
    thresholds: Floats | None = None  # (12,); None where no one threshold of each AU decides


def check(members: int, how: EnsembleRule) -> None:
    """Raises:
    ConfigError: a vote of so many can end in a tie.
    """
    if how == "vote" and members % 2 == 0:
        raise ConfigError(f"ensemble=vote with {members} checkpoints can end in a tie; give an odd number of them")


def decide(members: Sequence[Member], how: EnsembleRule) -> dict[str, Decision]:
    """The decisions at each of `STAGES`; the last one is the model's.

    mean: the members' probabilities, each smoothed as its model says, are averaged; so are their thresholds.
    vote: each member smooths and thresholds itself; positive if more than half say yes (Yu et al., ABAW5 2023).
    """
    check(len(members), how)
    half = np.full(members[0].thresholds.shape, 0.5)
    raw = [member.raw for member in members]
    smooth = [member.raw.smoothed(member.radius) for member in members]
    own = [member.thresholds for member in members]
    steps = ((raw, [half] * len(members)), (raw, own), (smooth, own))
    combine = _mean if how == "mean" else _vote
    return {stage: combine(*step) for stage, step in zip(STAGES, steps, strict=True)}


def _mean(predictions: Sequence[Predictions], thresholds: Sequence[Floats]) -> Decision:
    mean, at = _averaged(predictions), np.mean(thresholds, axis=0)
    return Decision(mean, mean.probabilities >= at, at)


def _vote(predictions: Sequence[Predictions], thresholds: Sequence[Floats]) -> Decision:
    votes = np.sum([p.probabilities >= at for p, at in zip(predictions, thresholds, strict=True)], axis=0)
    return Decision(_averaged(predictions), 2 * votes > len(predictions))


def _averaged(predictions: Sequence[Predictions]) -> Predictions:
    """Expressions are averaged where every member judges the same ones."""
    found = [p.expressions for p in predictions if p.expressions is not None]
    alike = len(found) == len(predictions) and len({values.shape for values in found}) == 1
    return replace(
        predictions[0],
        probabilities=np.mean([p.probabilities for p in predictions], axis=0),
        expressions=np.mean(found, axis=0) if alike else None,
    )
