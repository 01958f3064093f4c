"""The file of a clip: reproducible bytes, exact frame times and a key frame every second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aupipe.media.audio import audio
from aupipe.media.frames import frames
from aupipe.media.probe import probe
from aupipe.synthesis.clip import FPS, encode
from aupipe.synthesis.voice import RATE_HZ

pytestmark = pytest.mark.unit


def noise(frames: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(1).normal(0, 2000, frames * RATE_HZ // FPS).astype(np.int16)


def test_the_bytes_are_reproducible() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 255, (12, 20, 20, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    first = encode(smooth, noise(12), 18)
    for _ in range(4):
        litter = [rng.integers(0, 255, size, dtype=np.uint8) for size in rng.integers(2000, 60000, 300)]
        del litter  # The assembly code of x264 would read this memory beyond the picture.
        assert encode(smooth, noise(12), 18) == first


def test_frames_and_key_frames(tmp_path: Path) -> None:
    ramp = np.arange(40, dtype=np.uint8) * 6
    path = tmp_path / "a.mp4"
    pictures = np.broadcast_to(ramp[:, None, None, None], (40, 64, 64, 3)).copy()
    path.write_bytes(encode(pictures, noise(40), 18))
    assert probe(str(path)).codec == "h264"
    decoded = list(frames(str(path)))
    assert [frame.time_s for frame in decoded] == pytest.approx([number / FPS for number in range(40)])
    np.testing.assert_allclose([frame.image.mean() for frame in decoded if frame.image is not None], ramp, atol=4)


def test_sound_comes_back_sample_for_sample_from_time_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(np.zeros((13, 64, 64, 3), np.uint8), noise(13), 18))
    (block,) = audio(str(path))
    assert (block.start_s, block.rate_hz) == (0.0, RATE_HZ)
    np.testing.assert_array_equal(block.samples, noise(13)[None])
