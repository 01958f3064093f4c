"""The voice: silent behind shut lips, louder the wider, of another vowel with the jaw, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.arrays import AnyFloats as Floats
from aupipe.synthesis.voice import RATE_HZ, samples, synthesize_voice

pytestmark = pytest.mark.unit

FPS, FRAMES = 25, 50
SHUT = np.zeros(FRAMES)


def rms(sound: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def test_the_seed_alone_decides() -> None:
    opening = np.linspace(0, 0.2, FRAMES)
    first, again, other = (synthesize_voice(seed, opening, SHUT, FPS) for seed in (1, 1, 2))
    assert first.shape == (FRAMES * RATE_HZ // FPS,)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(5))
def test_energy_follows_the_lips(seed: int) -> None:
    opening = np.repeat([0.0, 0.06, 0.25, 0.0, -0.1], 10)
    inside = synthesize_voice(seed, opening, SHUT, FPS).reshape(FRAMES, -1)
    shut, ajar, wide, shut_again = (inside[first + 1 : first + 9] for first in (0, 10, 20, 30))
    assert rms(shut) > 0  # a room, no digital zero
    assert max(rms(shut), rms(shut_again)) < 0.05 * rms(ajar)
    assert 1.3 * rms(ajar) < rms(wide)
    assert np.abs(inside).max() < 1
    quietest = min(rms(frame) for frame in inside[21:29])
    assert 5 * rms(shut) < quietest < 0.8 * rms(wide)  # syllables, without holes


@pytest.mark.parametrize("seed", range(5))
def test_the_jaw_moves_the_spectrum(seed: int) -> None:
    opening = np.full(FRAMES, 0.2)
    high, low = (synthesize_voice(seed, opening, np.full(FRAMES, jaw), FPS) for jaw in (1.0, 0.0))
    frequency = np.fft.rfftfreq(len(low), 1 / RATE_HZ)

    def share(sound: Floats) -> float:
        power = np.abs(np.fft.rfft(sound)) ** 2
        return float(power[(frequency > 600) & (frequency < 1000)].sum() / power.sum())

    assert share(high) > 2 * share(low)
    assert rms(high) == pytest.approx(rms(low), rel=0.2)


def test_two_people_are_the_sum_within_full_scale() -> None:
    left, right = np.array([0.5, 0.9, -0.9], np.float32), np.array([-0.25, 0.9, -0.9], np.float32)
    assert samples([left, right]).tolist() == [round(0.25 * 32767), 32767, -32768]
    assert samples([left]).tolist() == [16384, 29490, -29490]
