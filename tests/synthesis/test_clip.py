"""A clip's file: the same bytes whatever lies in memory, every frame in its place, seekable by the second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe.media.frames import frames
from aupipe.media.probe import probe
from aupipe.synthesis.clip import FPS, encode

pytestmark = pytest.mark.unit


def test_the_bytes_repeat() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 255, (12, 20, 20, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    first = encode(smooth, 18)
    for _ in range(4):
        litter = [rng.integers(0, 255, size, dtype=np.uint8) for size in rng.integers(2000, 60000, 300)]
        del litter  # x264's assembly would now read it beyond the picture
        assert encode(smooth, 18) == first


def test_frames_and_key_frames(tmp_path: Path) -> None:
    ramp = np.arange(40, dtype=np.uint8) * 6
    path = tmp_path / "a.mp4"
    path.write_bytes(encode(np.broadcast_to(ramp[:, None, None, None], (40, 64, 64, 3)).copy(), 18))
    assert probe(str(path)).codec == "h264"
    shown = list(frames(str(path)))
    assert [frame.time_s for frame in shown] == pytest.approx([number / FPS for number in range(40)])
    np.testing.assert_allclose([frame.image.mean() for frame in shown if frame.image is not None], ramp, atol=4)
