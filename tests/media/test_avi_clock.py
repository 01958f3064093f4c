"""AVI: the index of the file is authoritative, not the number of frames in its header."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from aupipe.media.frames import frames
from aupipe.media.probe import probe
from harness import oddities
from harness.clips import scene

pytestmark = pytest.mark.unit


def chunks() -> list[tuple[bytes, bool]]:
    encoded = oddities.packets("mpeg4", scene(12, size=(96, 64), face=56), "yuv420p", {"g": "6"})
    return [(data, key) for data, key, _ in encoded]


@pytest.mark.parametrize("counted", [11, 12, 13, 24, 5000])
@pytest.mark.parametrize("index", [True, False])
def test_a_header_that_differs_from_the_index_is_a_remark(tmp_path: Path, counted: int, index: bool) -> None:
    path = oddities.write_avi(tmp_path / "a.avi", chunks(), (96, 64), b"XVID", counted=counted, index=index)
    info = probe(str(path))
    assert (info.frames_expected, info.missing, info.missing_s, info.damage) == (12, 0, 0, "")
    assert bool(info.remark) == (counted > 12)
    assert [frame.time_s for frame in frames(str(path))] == pytest.approx([number / 25 for number in range(12)])


@pytest.mark.parametrize("empty", [1, 3])
def test_empty_chunks_at_the_end_are_not_lost_frames(tmp_path: Path, empty: int) -> None:
    path = oddities.write_avi(tmp_path / "a.avi", chunks() + [(b"", False)] * empty, (96, 64), b"XVID")
    info = probe(str(path))
    assert (info.frames_expected, info.missing, info.missing_s) == (12, 0, 0)


@pytest.mark.parametrize("index", [True, False])
def test_a_truncated_file_has_lost_the_frames_that_its_header_counts(tmp_path: Path, index: bool) -> None:
    path = oddities.write_avi(tmp_path / "a.avi", chunks(), (96, 64), b"XVID", index=index)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size * 6 // 10)
    info = probe(str(path))
    assert info.frames_expected == 12
    assert info.missing > 0
    assert len(list(frames(str(path)))) == 12


@pytest.mark.parametrize("lost", [0, 3])
def test_a_file_that_is_cut_short_in_its_second_part_has_lost_frames(tmp_path: Path, lost: int) -> None:
    first, second = chunks()[:6], chunks()[6:]
    path = oddities.write_avi(tmp_path / "a.avi", first, (96, 64), b"XVID", counted=12, index=False)
    movie = b"".join(b"00dc" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for data, _ in second)
    part = b"AVIXLIST" + struct.pack("<I", 4 + len(movie)) + b"movi" + movie  # OpenDML: one for each GB
    end = sum(8 + len(data) + len(data) % 2 for data, _ in second[6 - lost :])
    path.write_bytes((path.read_bytes() + b"RIFF" + struct.pack("<I", len(part)) + part)[: -end or None])
    info = probe(str(path))
    assert (info.frames_expected, info.missing, info.remark) == (12, lost, "")
    assert [frame.image is None for frame in frames(str(path))] == [False] * (12 - lost) + [True] * lost
