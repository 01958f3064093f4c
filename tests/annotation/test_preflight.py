"""Headers: limits before memory is taken, and frames of a dry run."""

from __future__ import annotations

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


def test_frames_of_an_archive_are_estimated(clip: str) -> None:
    inputs = [Input(clip, "a"), Input(clip, "b", 0.5, 1.5), Input(clip + "gone", "c")]
    assert estimate_frames(inputs, AnnotateConfig()) == 75
    assert estimate_frames(inputs, AnnotateConfig(sample_fps=5)) == 15
    assert estimate_frames([inputs[0]] * 1000, AnnotateConfig()) == 50_000
    assert estimate_frames([], AnnotateConfig()) == 0
