"""Evidence of lost frames in the headers of files: what counts as a loss, and what does not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from aupipe.media.probe import probe
from harness.clips import write_clip

pytestmark = pytest.mark.unit

NOISE = list(np.random.default_rng(0).integers(0, 256, (10, 36, 48, 3), np.uint8))


def patched(data: bytes, place: int, value: int, size: int) -> bytes:
    return data[:place] + value.to_bytes(size, "little") + data[place + size :]


@pytest.mark.parametrize("cut", [0, 1, 8])
def test_the_count_in_an_avi_header_is_believed_only_if_the_file_is_shorter_than_its_chunks(
    cut: int, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "a.avi", NOISE, codec="mjpeg", tick=Fraction(1, 25))
    data = path.read_bytes()
    place = data.index(b"strh") + 8 + 32
    assert data[place : place + 4] == (10).to_bytes(4, "little")
    data = patched(data, place, 15, 4)
    path.write_bytes(data[: len(data) - cut])
    info = probe(str(path))
    assert (info.missing, info.frames_expected) == ((5, 15) if cut else (0, 10))
    assert info.remark == ("" if cut else "its header counts 15 frames, its index 10")


def test_a_flash_video_may_lack_the_size_after_its_last_tag(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.flv", NOISE, codec="flv", muxer={"flvflags": "no_metadata"})
    data = path.read_bytes()
    for cut in (0, 4, 5):
        path.write_bytes(data[: len(data) - cut])
        assert bool(probe(str(path)).damage) == (cut == 5)


@pytest.mark.parametrize(("more", "flags", "lost"), [(0, 2, False), (1, 2, True), (1, 3, False)])
def test_the_packets_that_a_windows_media_header_counts(more: int, flags: int, lost: bool, tmp_path: Path) -> None:
    """A file that was written while it was sent has flag 1, and its count means nothing."""
    path = write_clip(tmp_path / "a.wmv", NOISE, codec="wmv2")
    data = path.read_bytes()
    start = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    count = int.from_bytes(data[start + 56 : start + 64], "little")
    path.write_bytes(patched(patched(data, start + 56, count + more, 8), start + 88, flags, 4))
    assert probe(str(path)).damage == ("it is shorter than its header states" if lost else "")


def test_hours_that_a_matroska_file_lacks_are_counted(tmp_path: Path) -> None:
    times = [40 * number + 7_200_000 * (number >= 10) for number in range(20)]
    path = write_clip(tmp_path / "a.mkv", NOISE * 2, codec="mjpeg", times=times)
    assert probe(str(path)).missing_s == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe(str(path)).missing_s == pytest.approx(7200, abs=1)
