"""Headers: limits before memory is taken, and frames of a dry run."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from aupipe.annotation.inputs import Input
from aupipe.annotation.preflight import check, estimate_frames, read_header
from aupipe.annotation.settings import AnnotateConfig, LimitsConfig
from aupipe.errors import TooLargeError
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", scene(50, people=())))


def test_what_is_too_large_is_refused_by_its_header(clip: str) -> None:
    header = read_header(clip)
    assert (header.width_px, header.height_px, header.frames, header.rate_hz) == (320, 240, 50, 25)
    check(clip, LimitsConfig())
    with pytest.raises(TooLargeError, match=r"320×240 are beyond limits\.frame_px=1,000"):
        check(clip, LimitsConfig(frame_px=1000))
    with pytest.raises(TooLargeError, match=r"50 frames are beyond limits\.frames=49"):
        check(clip, LimitsConfig(frames=49))


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_late_start_adds_nothing_to_the_length(name: str, tmp_path: Path) -> None:
    """Matroska's duration is the time of its end."""
    times = [50_000_000 + 40 * number for number in range(25)]
    path = str(write_clip(tmp_path / name, scene(25, people=()), times=times))
    check(path, LimitsConfig(duration_s=10))
    assert estimate_frames([Input(path, "a")], AnnotateConfig()) == pytest.approx(25, abs=2)


def test_frames_of_an_archive_are_estimated(clip: str) -> None:
    inputs = [Input(clip, "a"), Input(clip, "b", 0.5, 1.5), Input(clip + "gone", "c")]
    assert estimate_frames(inputs, AnnotateConfig()) == 75
    assert estimate_frames(inputs, AnnotateConfig(sample_fps=5)) == 15
    assert estimate_frames([inputs[0]] * 1000, AnnotateConfig()) == 50_000
    assert estimate_frames([], AnnotateConfig()) == 0


def test_images_and_sequences_have_a_frame_per_file(tmp_path: Path) -> None:
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((24, 32, 3), np.uint8))
    (tmp_path / "0.png").write_bytes(b"damaged")
    header = read_header(f"{tmp_path}/1.png")
    assert (header.width_px, header.height_px, header.counted, header.frames) == (32, 24, 1, 1)
    header = read_header(f"{tmp_path}/")
    assert (header.width_px, header.height_px, header.counted, header.frames) == (32, 24, 3, 3)
    assert estimate_frames([Input(f"{tmp_path}/", "s"), Input(f"{tmp_path}/1.png", "1.png")], AnnotateConfig()) == 4
    with pytest.raises(TooLargeError, match=r"3 frames are beyond limits\.frames=2"):
        check(f"{tmp_path}/", LimitsConfig(frames=2))
