"""Plan: what the arguments name, and segments that cover every frame once."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.annotation.plan import Input, cut_into_segments, find_inputs
from aupipe.errors import ConfigError
from aupipe.media.probe import VideoInfo

pytestmark = pytest.mark.unit


def test_a_folder_is_searched_for_videos_and_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", "deep/er/b.MOV", "notes.txt", ".hidden.mp4", "deep/c.mpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    inputs, passed_over = find_inputs([str(tmp_path)])
    assert [video.video_id for video in inputs] == ["a.mp4", "deep/c.mpg", "deep/er/b.MOV"]
    assert passed_over == 1
    assert [v.video_id for v in find_inputs([str(tmp_path)], limit=2)[0]] == ["a.mp4", "deep/c.mpg"]


def test_what_is_named_is_tried_whatever_it_is_called(tmp_path: Path) -> None:
    inputs, _ = find_inputs([str(tmp_path / "film.bin"), "s3://bucket/films/x.mp4"])
    assert [video.video_id for video in inputs] == ["film.bin", "x.mp4"]


def test_one_id_for_two_files_is_refused_naming_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one/a\.mp4 and .*two/a\.mp4"):
        find_inputs([str(tmp_path / "one/a.mp4"), str(tmp_path / "two/a.mp4")])
    assert len(find_inputs([str(tmp_path / "a.mp4")] * 2)[0]) == 1


def test_a_pattern_names_what_it_matches(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mov", "odd[1].mp4"):
        (tmp_path / name).touch()
    assert [v.video_id for v in find_inputs([str(tmp_path / "*.mp4")])[0]] == ["a.mp4", "b.mp4", "odd[1].mp4"]
    assert [v.video_id for v in find_inputs([str(tmp_path / "odd[1].mp4")])[0]] == ["odd[1].mp4"]
    with pytest.raises(ConfigError, match="nothing matches"):
        find_inputs([str(tmp_path / "*.avi")])
    with pytest.raises(ConfigError, match="empty name"):
        find_inputs([""])


def test_linked_folders_are_searched_once_and_odd_names_become_text(tmp_path: Path) -> None:
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "in" / "real" / "a.mp4").touch()
    (tmp_path / "in" / "real" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.mp4").touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "far")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/caf\xe9.mp4")).touch()
    ids = [video.video_id for video in find_inputs([str(tmp_path / "in")])[0]]
    assert ids == ["caf\\xe9.mp4", "link/b.mp4", "real/a.mp4"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(ConfigError, match="no video in this folder"):
        find_inputs([str(tmp_path)])


def _info(pts: np.ndarray, keys: np.ndarray) -> VideoInfo:
    return VideoInfo("h264", "mov", 64, 64, 0, Fraction(1, 25), 0.0, 1.0, len(pts), 0, 0.0, pts, pts[keys], False, None)


@given(st.integers(1, 300), st.integers(1, 40), st.floats(0.04, 8.0), st.integers(0, 6))
def test_segments_own_every_frame_once_and_decode_what_smoothing_needs(
    count: int, group: int, segment_s: float, radius: int
) -> None:
    info = _info(np.arange(count) * 3 + 7, np.arange(0, count, group))
    segments = cut_into_segments(Input("x", "x"), info, segment_s, radius)
    owned = []
    for segment in segments:
        stop = count if segment.own_stop is None else segment.own_stop
        owned += range(segment.own_start, stop)
        first, last = segment.span.first, segment.span.first + segment.span.expected - 1
        assert first <= max(0, segment.own_start - radius)
        assert last >= min(count - 1, stop - 1 + radius)
        assert (segment.span.first_pts, segment.span.last_pts) == (first * 3 + 7, last * 3 + 7)
        assert segment.span.seek_pts is None or segment.span.seek_pts < segment.span.first_pts
    assert owned == list(range(count))


def test_a_video_without_an_exact_index_is_one_segment() -> None:
    info = VideoInfo(
        "mpeg1video", "mpeg", 64, 64, 0, Fraction(1, 25), 0.0, 1.0, 500, 0, 0.0, None, np.zeros(0), False, None
    )
    (segment,) = cut_into_segments(Input("x", "x"), info, 1.0, 4)
    assert (segment.own_start, segment.own_stop, segment.span.expected, segment.span.exact) == (0, None, 500, False)
