"""Who shows which Action Unit when: the plan of a whole data set, from its seed alone, with no rig and no pixels.

An expression class drives a set of AUs through onset, apex and offset; further segments of single AUs are then added
until each split has its share of every AU, so that rare AUs occur in several identities of both splits by construction.
Rates follow Aff-Wild2's training set, read off its published histogram, but no AU is rarer than `LEAST_RATE`: a few
thousand frames at Aff-Wild2's 3 % would leave AU15, AU23 and AU24 in one or two people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.arrays import Ints32 as Ints
from aupipe.facestore.schema import SPLITS
from aupipe.synthesis.au_blendshapes import LIPS_PARTED_DM

# An AU is labeled present from this intensity on (0 none, 1 the most that AU_OFFSETS show): about FACS level B.
PRESENT = 0.25
# Positive rates of the ABAW5 training set, in the order of facs.AUS.
AFFWILD2_RATES = (0.122, 0.052, 0.165, 0.272, 0.410, 0.355, 0.250, 0.028, 0.032, 0.029, 0.646, 0.078)
LEAST_RATE = 0.12
EXPRESSED = 0.4  # the expression is labeled where its envelope reaches this
UNANNOTATED_EVERY, UNANNOTATED_FRAMES = 8, 3  # some videos end in rows of −1, as real ones do
LEAST_FRAMES = 5  # an AU "occurs" in a video with this many positive frames

# Share of videos by driving expression, and the probability of each AU in it (EMFACS prototypes, loosened).
SHARES: Mapping[str, float] = {
    "Neutral": 0.22, "Anger": 0.10, "Disgust": 0.10, "Fear": 0.08, "Happiness": 0.20, "Sadness": 0.12,
    "Surprise": 0.10, "Other": 0.08,
}  # fmt: skip
DRIVEN: Mapping[str, Mapping[str, float]] = {
    "Neutral": {},
    "Anger": {"AU04": 1.0, "AU07": 0.8, "AU23": 0.5, "AU24": 0.5, "AU10": 0.2},
    "Disgust": {"AU10": 1.0, "AU04": 0.5, "AU07": 0.6, "AU15": 0.3, "AU25": 0.4},
    "Fear": {"AU01": 1.0, "AU02": 0.8, "AU04": 0.7, "AU25": 0.7, "AU26": 0.4},
    "Happiness": {"AU12": 1.0, "AU06": 0.9, "AU07": 0.4, "AU25": 0.7, "AU10": 0.3, "AU26": 0.2},
    "Sadness": {"AU01": 0.9, "AU04": 0.7, "AU15": 0.7, "AU07": 0.3},
    "Surprise": {"AU01": 0.9, "AU02": 1.0, "AU25": 1.0, "AU26": 0.8},
    "Other": {"AU02": 0.4, "AU07": 0.4, "AU12": 0.3, "AU15": 0.3, "AU23": 0.3, "AU24": 0.3},
}
# AUs that would make a neutral face look otherwise; single segments of them go elsewhere where they can.
_NOT_NEUTRAL = ("AU04", "AU06", "AU12", "AU15")
# The first suppresses the others while it lasts: pressed lips do not part, corners do not go up and down at once.
_SUPPRESSES: Mapping[str, tuple[str, ...]] = {
    "AU23": ("AU10", "AU25", "AU26"), "AU24": ("AU10", "AU25", "AU26", "AU23"), "AU15": ("AU12",),
}  # fmt: skip
# Lips' opening (dm) at full intensity, the median over people: foretells AU25, whose label is read off the mesh.
_OPENING = {"AU25": 0.066, "AU10": 0.055, "AU26": 0.218, "AU12": -0.025}

_INDEX = {au: i for i, au in enumerate(facs.AUS)}


@dataclass(frozen=True)
class VideoPlan:
    """One video of N frames.

    intensity: (N, 12) 0..1;  expression: (N,) class index;  annotated: (N,) False where the annotation is to say −1;
    seed: for the person, the scene and all that is not labeled.
    """

    name: str
    split: str
    seed: int
    expression: Ints
    intensity: Floats
    annotated: npt.NDArray[np.bool_]


def plan(*, seed: int, names: Sequence[str], frames: int, fps: int, expressions: Sequence[str]) -> list[VideoPlan]:
    """The whole data set in the order of `names`. Every third video is for validation; each video is another person.

    Args:
        expressions: class names in label order; "Neutral" first.
    """
    plans: dict[str, VideoPlan] = {}
    for number, split in enumerate(SPLITS):
        chosen = [i for i in range(len(names)) if (i % 3 == 2) == (split == "validation")]
        rng = np.random.default_rng([seed, number])
        classes = [str(expression) for expression in rng.permutation(_shares(len(chosen), expressions))]
        intensity = np.zeros((len(chosen), frames, len(facs.AUS)), np.float32)
        label = np.zeros((len(chosen), frames), np.int32)
        for row, expression in enumerate(classes):
            envelope = _drive(rng, intensity[row], expression, fps)
            label[row, envelope >= EXPRESSED] = expressions.index(expression)
        _fill(rng, intensity, classes, fps)
        shown = suppressed(intensity)
        for row, i in enumerate(chosen):
            annotated = np.ones(frames, bool)
            if row % UNANNOTATED_EVERY == 1:
                annotated[-UNANNOTATED_FRAMES:] = frames <= UNANNOTATED_FRAMES
            person = int(np.random.SeedSequence([seed, number, row]).generate_state(1)[0])
            plans[names[i]] = VideoPlan(names[i], split, person, label[row], shown[row], annotated)
    return [plans[name] for name in names]


def suppressed(intensity: Floats) -> Floats:
    """`intensity` (…, N, 12) where AUs that exclude each other have given way."""
    shown = intensity.copy()
    for au, others in _SUPPRESSES.items():
        room = 1 - (1.5 * shown[..., _INDEX[au]]).clip(0, 1)
        for other in others:
            shown[..., _INDEX[other]] *= room
    return shown


def present(intensity: Floats, parted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(…, 12) bool labels: intensity reaches PRESENT; AU25 is whether the lips are parted (…,)."""
    label = intensity >= PRESENT
    label[..., _INDEX["AU25"]] = parted
    return label


def foretold(intensity: Floats) -> npt.NDArray[np.bool_]:
    """(…, 12) bool labels that `intensity` will give, AU25 by the typical opening of the lips."""
    opening = sum(intensity[..., _INDEX[au]] * size for au, size in _OPENING.items())
    return present(intensity, np.asarray(opening) > LIPS_PARTED_DM)


def segment(rng: np.random.Generator, frames: int, fps: int, peak: float, hold_s: float) -> Floats:
    """(frames,) smooth rise to `peak`, hold with a little life in it, slower fall; may begin or end outside."""
    onset, offset = rng.uniform(0.15, 0.4) * fps, rng.uniform(0.25, 0.6) * fps
    half, middle = hold_s * fps / 2, rng.uniform(0, frames - 1)
    distance = np.arange(frames) - middle
    ramp = np.clip(np.where(distance < 0, (distance + half + onset) / onset, (half + offset - distance) / offset), 0, 1)
    life = 1 + 0.06 * np.sin(2 * np.pi * (rng.uniform(0.5, 1.5) * np.arange(frames) / fps + rng.random()))
    return np.clip(peak * life * (0.5 - 0.5 * np.cos(np.pi * ramp)), 0, 1).astype(np.float32)


def _peak(rng: np.random.Generator) -> float:
    """Most activations are plain to see, some are weak."""
    return float(rng.uniform(0.6, 1.0) if rng.random() < 0.8 else rng.uniform(0.35, 0.6))


def _shares(n: int, expressions: Sequence[str]) -> list[str]:
    """`n` class names by SHARES (largest remainders first)."""
    total = sum(SHARES[e] for e in expressions)
    exact = {e: n * SHARES[e] / total for e in expressions}
    counts = {e: int(exact[e]) for e in expressions}
    by_remainder = sorted(expressions, key=lambda e: counts[e] - exact[e])
    for e in by_remainder[: n - sum(counts.values())]:
        counts[e] += 1
    return [e for e in expressions for _ in range(counts[e])]


def _drive(rng: np.random.Generator, intensity: Floats, expression: str, fps: int) -> Floats:
    """Write one episode of `expression`, and some movement too small for a label, into `intensity` (N, 12).

    Returns the episode's envelope (N,).
    """
    frames = len(intensity)
    for au in rng.choice(len(facs.AUS), 2, replace=False):
        intensity[:, au] = segment(rng, frames, fps, rng.uniform(0.05, 0.18), rng.uniform(0.3, 1.0))
    envelope = segment(rng, frames, fps, 1.0, rng.uniform(0.5, 0.8) * frames / fps)
    for au, chance in DRIVEN[expression].items():
        if rng.random() < chance:
            lag = int(rng.integers(-3, 4))
            intensity[:, _INDEX[au]] = np.clip(_peak(rng) * _delayed(envelope, lag), 0, 1)
    return envelope


def _delayed(curve: Floats, lag: int) -> Floats:
    return curve[np.clip(np.arange(len(curve)) - lag, 0, len(curve) - 1)]


def _fill(rng: np.random.Generator, intensity: Floats, classes: Sequence[str], fps: int) -> None:
    """Add segments of single AUs to `intensity` (videos, N, 12) until every AU has its rate and enough people.

    AUs that suppress others come first, AU25, which others bring about, last.
    """
    videos, frames, _ = intensity.shape
    enough_people = min(videos, max(1, min(6, videos // 4)))
    order = sorted(facs.AUS, key=lambda au: (au == "AU25", au not in _SUPPRESSES, facs.AUS.index(au)))
    for au in order:
        index = _INDEX[au]
        rate = max(AFFWILD2_RATES[index], LEAST_RATE)
        misplaced = np.array([expression == "Neutral" and au in _NOT_NEUTRAL for expression in classes])
        positive = foretold(suppressed(intensity))[..., index].sum(1)
        for video in np.lexsort(np.stack([rng.random(videos), positive, misplaced])):
            positive = foretold(suppressed(intensity))[..., index].sum(1)
            people = int((positive >= min(LEAST_FRAMES, frames // 3)).sum())
            if positive.sum() >= rate * videos * frames and people >= enough_people:
                break
            hold_s = rng.uniform(0.25, 0.6) * frames / fps
            extra = segment(rng, frames, fps, _peak(rng), hold_s)
            intensity[video, :, index] = np.maximum(intensity[video, :, index], extra)
