"""What a rendered person says: speech-like sound that follows the mouth, so that hearing tells of AU25 and AU26.

A source-filter voice (Fant, Acoustic Theory of Speech Production, 1960) in its plainest form: harmonics of a gliding
pitch under two formants, breath, and syllables about four times a second. Lips apart: sound, the louder the wider.
Jaw down: the first formant rises, as in "ah" against "ee". Lips shut: the room's hiss alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis.au_blendshapes import LIPS_PARTED_DM

# The rate of Aff-Wild2's sound tracks and of the spectrograms in the papers that hear; 1764 samples a frame at 25/s.
RATE_HZ = 44_100

_WIDE_DM = 0.2  # opening of the lips at which a voice is as loud as it gets
_LOUDEST = 0.12  # root mean square of a syllable's middle at that opening, 1 = full scale
_HIGHEST_HZ = 5000.0
_FORMANT_WIDTH_HZ = (110.0, 180.0)


def synthesize_voice(seed: int, opening_dm: Floats, jaw: Floats, fps: int) -> Floats:
    """(n,) float32 sound of one person, n = N·RATE_HZ/fps; the same for a seed. Pictures do not depend on it.

    Args:
        seed: of the video.
        opening_dm: (N,) gap between the lips.
        jaw: (N,) intensity of AU26.
    """
    rng = np.random.default_rng([seed, RATE_HZ])  # its own, so that sound takes no number away from the pictures
    count = len(opening_dm) * RATE_HZ // fps
    time_s = np.arange(count) / RATE_HZ

    def by_sample(curve: Floats) -> Floats:
        return np.interp(time_s * fps, np.arange(len(curve)), curve)

    aperture = by_sample(((opening_dm - LIPS_PARTED_DM) / _WIDE_DM).clip(0, 1))
    loudness = _LOUDEST * rng.uniform(0.6, 1.4) * np.sqrt(aperture) * _syllables(rng, time_s)
    glide = rng.uniform(0.02, 0.08) * np.sin(2 * np.pi * (rng.uniform(0.4, 1.2) * time_s + rng.random()))
    pitch_hz = rng.uniform(95, 240) * (1 + glide)
    vowels_hz = rng.uniform(
        1000, 2300, count // (RATE_HZ // 5) + 2
    )  # a second formant that wanders from vowel to vowel
    second_hz = np.interp(time_s * 5, np.arange(len(vowels_hz)), vowels_hz)
    voiced = _harmonics(rng, pitch_hz, (320 + 480 * by_sample(jaw.clip(0, 1)), second_hz))
    breath = np.diff(rng.standard_normal(count + 1)) / np.sqrt(2)  # a difference leans towards high frequencies
    hiss = rng.uniform(2e-4, 1e-3) * rng.standard_normal(count)
    sound: Floats = (loudness * (voiced + rng.uniform(0.1, 0.3) * breath) + hiss).astype(np.float32)
    return sound


def samples(voices: list[Floats]) -> npt.NDArray[np.int16]:
    """(n,) of the people of one video together, clipped at full scale."""
    return (np.sum(voices, axis=0) * 32767).round().clip(-32768, 32767).astype(np.int16)


def _syllables(rng: np.random.Generator, time_s: Floats) -> Floats:
    """(n,) 0.3..1: rises and falls three to five times a second, never quite to silence."""
    rate_hz, phase = rng.uniform(3, 5), rng.random()
    stumble = 0.15 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.9) * time_s + rng.random()))
    beat: Floats = 0.65 - 0.35 * np.cos(2 * np.pi * (rate_hz * time_s + phase + stumble))
    return beat


def _harmonics(rng: np.random.Generator, pitch_hz: Floats, formants_hz: tuple[Floats, ...]) -> Floats:
    """(n,) voiced sound of power 1 whatever the vowel."""
    turns = np.cumsum(pitch_hz) / RATE_HZ
    sound, power = np.zeros(len(turns)), np.full(len(turns), 1e-9)
    for number in range(1, int(_HIGHEST_HZ / pitch_hz.min()) + 1):
        frequency = number * pitch_hz
        resonance = sum(
            1 / (1 + ((frequency - middle) / width) ** 2)
            for middle, width in zip(formants_hz, _FORMANT_WIDTH_HZ, strict=True)
        )
        strength = (frequency < _HIGHEST_HZ) * (0.03 + resonance) / number**0.5
        sound += strength * np.sin(2 * np.pi * (number * turns + rng.random()))
        power += strength**2 / 2
    voiced: Floats = sound / np.sqrt(power)
    return voiced
