"""The decision rule: how the probabilities of one or several models become yes or no for each AU.

Evaluation and annotation both call `apply_rule`, so a score is measured with the decisions that annotation writes.
"""

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
    """The probabilities of one model for N rows, with its thresholds and smoothing."""

    raw: Predictions
    thresholds: Floats  # (12,)
    radius: int  # frames of smoothing on either side


@dataclass(frozen=True)
class Decision:
    """Probabilities (the mean over several models) and decisions (N, 12).

    Attributes:
        thresholds: (12,); None for a vote, which has no common threshold.
        has_probabilities: False if those of `predictions` are the decisions, so that areas under curves mean nothing.
    """

    predictions: Predictions
    decided: Bools
    thresholds: Floats | None = None
    has_probabilities: bool = True


def check(members: int, rule: EnsembleRule) -> None:
    """Refuse a vote that can end in a tie.

    Raises:
        ConfigError: the number of voting members is even.
    """
    if rule == "vote" and members % 2 == 0:
        raise ConfigError(f"ensemble=vote with {members} checkpoints can end in a tie; give an odd number of them")


def apply_rule(
    probabilities: Sequence[Floats] | Floats,
    thresholds: Sequence[Floats] | Floats,
    rule: EnsembleRule,
) -> tuple[Floats, Bools]:
    """Return the mean probability (N, …) and the decisions (N, …) of K models.

    mean: positive if the mean probability reaches the mean threshold.
    vote: each model applies its own threshold; positive if more than half of them are (Yu et al., ABAW5 2023).

    Probabilities and thresholds are compared in float32, the precision of the tables, so that comparing the stored
    values gives the stored decisions. A probability at its threshold is positive; NaN is negative.

    Args:
        probabilities: (K, N, …), smoothed.
        thresholds: K arrays or numbers that broadcast to (N, …).
    """
    mean = _mean(probabilities)
    if rule == "mean":
        return mean, reaches(mean, _mean(thresholds))
    votes = np.sum([reaches(p, at) for p, at in zip(probabilities, thresholds, strict=True)], axis=0)
    return mean, 2 * votes > len(probabilities)


def _mean(members: Sequence[Floats] | Floats) -> Floats:
    """Return the mean over members, added one after the other: the bits depend neither on memory layout nor on N."""
    total = members[0]
    for member in members[1:]:
        total = total + member
    return total / len(members)


def reaches(probabilities: Floats, thresholds: Floats) -> Bools:
    """Return the decisions (N, …) of one model, by the comparison of `apply_rule`; the arguments broadcast."""
    reached: Bools = probabilities.astype(np.float32) >= np.asarray(thresholds).astype(np.float32)
    return reached


def decide(members: Sequence[Member], rule: EnsembleRule) -> dict[str, Decision]:
    """Return the decisions at each of `STAGES`; the last stage is the one that the models are used with."""
    check(len(members), rule)
    half = np.full(members[0].thresholds.shape, 0.5)
    raw = [member.raw for member in members]
    smooth = [member.raw.smoothed(member.radius) for member in members]
    own = [member.thresholds for member in members]
    steps = ((raw, [half] * len(members)), (raw, own), (smooth, own))
    return {stage: _decide(*step, rule) for stage, step in zip(STAGES, steps, strict=True)}


def _decide(predictions: Sequence[Predictions], thresholds: Sequence[Floats], rule: EnsembleRule) -> Decision:
    """Return one stage's decision. Expressions are averaged if every member predicts the same classes."""
    mean, decided = apply_rule([p.probabilities for p in predictions], thresholds, rule)
    found = [p.expressions for p in predictions if p.expressions is not None]
    alike = found and len({p.classes for p in predictions}) == 1
    averaged = replace(predictions[0], probabilities=mean, expressions=_mean(found) if alike else None)
    return Decision(averaged, decided, _mean(thresholds) if rule == "mean" else None)
