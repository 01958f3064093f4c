"""Intensity of AUs above the resting face: 0 at rest, 1 where the probability is 1."""

from __future__ import annotations

import numpy as np

from aupipe.arrays import Floats

MIN_TRACK_S = 10.0  # Shorter tracks may never show the face at rest.
MIN_TRACK_FRAMES = 50
QUANTILE = 0.1  # A lower one follows single wrong frames, a higher one expects more rest than a conversation has.


def rest_of(times_s: Floats, probabilities: Floats, population: float, threshold: float) -> float:
    """Return the probability of an AU in one face at rest.

    It is the `QUANTILE` of the face's own probabilities if it was seen in at least `MIN_TRACK_FRAMES` frames over at
    least `MIN_TRACK_S`. A face whose quantile reaches the threshold shows the AU nearly always, so its own rest is
    unknown. Such a face, and one that was seen for a shorter time, has the rest of the population.

    Args:
        times_s: (N,) of the frames with the face, ascending.
        probabilities: (N,) smoothed, without NaN.
        population: median probability of people at rest.
        threshold: of the AU.
    """
    if len(times_s) < MIN_TRACK_FRAMES or times_s[-1] - times_s[0] < MIN_TRACK_S:
        return population
    # A probability that occurs, so that no interpolation rounds it.
    own = float(np.quantile(probabilities, QUANTILE, method="lower"))
    return own if own < threshold else population


def intensity(probabilities: Floats, rest: float) -> Floats:
    """Return the intensity (N,) of an AU: linear from 0 at the face's rest to 1 at probability 1, never negative."""
    if rest >= 1:
        return np.zeros_like(probabilities)
    return np.clip((probabilities - rest) / (1 - rest), 0, 1)
