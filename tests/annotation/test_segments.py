"""Plan: segments that cover every frame that is asked for once."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.annotation.inputs import Input
from aupipe.annotation.segments import Segment, cut_into_segments
from aupipe.errors import NoClockError, NoFramesError
from aupipe.faces.search import begins_cell
from aupipe.media.probe import VideoInfo, probe
from harness.clips import scene, write_clip
from harness.sizes import sizes

pytestmark = pytest.mark.unit

FPS = 25


def _info(pts: np.ndarray, keys: np.ndarray) -> VideoInfo:
    return VideoInfo(
        codec="h264", container="mov", width_px=64, height_px=64, track=0, tracks=1, rotation=0,
        pixel_aspect=Fraction(1), hdr="", time_base=Fraction(1, 25), start_s=0.0,
        duration_s=1.0, frames_expected=len(pts), missing=0, missing_s=0.0, damage="", loss_if_corrupt="", remark="",
        restarts=(), pts=pts, leading=0, exact=True, by_order=False,
        key_pts=pts[keys], variable_frame_rate=False, audio=None,
    )  # fmt: skip


@given(
    st.integers(1, 300), st.integers(1, 40), st.floats(0.04, 8.0), st.integers(0, 6), st.integers(1, 12),
    st.one_of(st.none(), st.floats(0.3, 8)),
)  # fmt: skip
def test_segments_begin_with_a_cell_of_the_search(
    count: int, group: int, segment_s: float, radius: int, every: int, fps: float | None
) -> None:
    info = _info(np.arange(count) * 3 + 7, np.arange(0, count, group))
    (whole,) = cut_into_segments(Input("x", "x"), info, 1e9, radius, fps, search_every=every)
    seen = np.array(_looked_at(whole))
    cells = set(seen[begins_cell(seen, every)].tolist())
    segments = cut_into_segments(Input("x", "x"), info, segment_s, radius, fps, search_every=every)
    assert {_looked_at(segment)[0] for segment in segments} <= cells
    assert sum(segment.frames for segment in segments) == len(seen)
    for segment in segments[1:]:
        assert seen.tolist().index(segment.write_start) >= seen.tolist().index(_looked_at(segment)[0]) + max(radius, 1)


@pytest.mark.parametrize("start", [0, 3600 * FPS])  # cameras count from the time of day
@pytest.mark.parametrize(("minutes", "length_s"), [(0.3, 18), (3, 30), (12, 45), (30, 60)])
def test_segments_are_a_sixteenth_of_the_video_within_limits(minutes: float, length_s: float, start: int) -> None:
    count = round(minutes * 60 * FPS)
    segments = cut_into_segments(Input("x", "x"), _info(start + np.arange(count), np.arange(0, count, 10)), None, 0)
    lengths = [each.frames / FPS for each in segments]
    np.testing.assert_allclose(lengths[:-1] or lengths, length_s, rtol=0.05)


@given(st.integers(1, 300), st.integers(1, 40), st.floats(0.04, 8.0), st.integers(0, 6))
def test_segments_own_every_frame_once_and_decode_what_smoothing_needs(
    count: int, group: int, segment_s: float, radius: int
) -> None:
    info = _info(np.arange(count) * 3 + 7, np.arange(0, count, group))
    segments = cut_into_segments(Input("x", "x"), info, segment_s, radius)
    owned = []
    for segment in segments:
        stop = count if segment.write_stop is None else segment.write_stop
        owned += range(segment.write_start, stop)
        first, last = segment.span.first, segment.span.first + segment.span.expected - 1
        assert first <= max(0, segment.write_start - radius)
        assert last >= min(count - 1, stop - 1 + radius)
        assert (segment.span.first_pts, segment.span.last_pts) == (first * 3 + 7, last * 3 + 7)
        assert all(time < segment.span.first_pts for time in segment.span.seek_pts)
    assert owned == list(range(count))


@pytest.mark.parametrize("count", sizes(10)[1:])
def test_no_segment_is_empty(count: int) -> None:
    """A key frame every ten frames, and segments of at least as many; the first and the last smooth into the next."""
    info = _info(np.arange(count), np.arange(0, count, 10))
    segments = cut_into_segments(Input("x", "x"), info, 0.4, 2)
    held = [segment.frames for segment in segments]
    assert sum(held) == count
    assert min(held) > 0
    assert len(held) == (1 if count <= 12 else 2)


def test_a_video_without_an_exact_index_is_one_segment() -> None:
    info = replace(_info(np.arange(500), np.zeros(0, int)), pts=None, exact=False)
    (segment,) = cut_into_segments(Input("x", "x"), info, 1.0, 4)
    assert (segment.write_start, segment.write_stop, segment.span.expected, segment.span.exact) == (0, None, 500, False)


@given(
    st.integers(1, 300), st.integers(1, 40), st.floats(0.04, 8.0), st.integers(0, 6),
    st.one_of(st.none(), st.floats(0.3, 40)), st.floats(0, 8), st.floats(0.04, 8),
)  # fmt: skip
def test_a_part_and_a_rate_are_covered_alike(
    count: int, group: int, segment_s: float, radius: int, fps: float | None, start_s: float, length_s: float
) -> None:
    info = _info(np.arange(count) * 3 + 7, np.arange(0, count, group))
    times = (np.arange(count) * 3 + 7) / 25
    start_s = min(start_s, times[-1])
    video = Input("x", "x", start_s, start_s + length_s)
    inside = np.flatnonzero((times >= start_s) & (times < start_s + length_s)).tolist()
    if not inside:
        with pytest.raises(NoFramesError, match="no frame lies in the requested part"):
            cut_into_segments(video, info, segment_s, radius, fps)
        return
    segments = cut_into_segments(video, info, segment_s, radius, fps)
    (whole,) = cut_into_segments(video, info, 1e9, radius, fps)
    wanted = _looked_at(whole)
    if fps is None:
        assert wanted == inside
    else:
        slots = np.floor((times[wanted] - start_s) * fps + 1e-6)
        assert len(set(slots)) == len(wanted) == len(set(np.floor((times[inside] - start_s) * fps + 1e-6)))
    owned = []
    for segment in segments:
        seen = _looked_at(segment)
        mine = [
            i for i in seen if segment.write_start <= i < (count if segment.write_stop is None else segment.write_stop)
        ]
        assert segment.frames == len(mine)
        first, last = wanted.index(mine[0]), wanted.index(mine[-1])
        assert seen == wanted[wanted.index(seen[0]) : wanted.index(seen[-1]) + 1]
        assert wanted.index(seen[0]) <= max(0, first - radius)
        assert wanted.index(seen[-1]) >= min(len(wanted) - 1, last + radius)
        owned += mine
    assert owned == wanted


@given(
    st.integers(2, 300), st.integers(1, 40), st.integers(1, 60), st.floats(0.04, 8.0), st.integers(0, 6),
    st.one_of(st.none(), st.floats(0.3, 40)), st.one_of(st.none(), st.floats(0.1, 40)),
)  # fmt: skip
def test_frames_missing_at_the_end_are_sampled_as_if_they_existed(
    count: int, group: int, missing: int, segment_s: float, radius: int, fps: float | None, end_s: float | None
) -> None:
    whole = _info(np.arange(count + missing) * 3, np.arange(0, count, group))
    held = replace(whole, pts=np.arange(count) * 3, missing=missing)
    timeless = {"pts": None, "exact": False}
    pairs = [
        (whole, held),
        (
            replace(whole, duration_s=(count + missing) * 3 / 25, **timeless),
            replace(held, duration_s=count * 3 / 25, **timeless),
        ),
    ]
    for expected, info in pairs:
        (one,) = cut_into_segments(Input("x", "x", end_s=end_s), expected, 1e9, radius, fps)
        segments = cut_into_segments(Input("x", "x", end_s=end_s), info, segment_s, radius, fps)
        assert [index for segment in segments for index in segment.written_frames] == _looked_at(one)
        assert sum(segment.frames for segment in segments) == len(_looked_at(one))
        final = segments[-1].span
        if info.pts is not None and _looked_at(one)[-1] >= count:
            assert final.last_pts == (count - 1) * 3


def _looked_at(segment: Segment) -> list[int]:
    span = segment.span
    return list(
        range(span.first, span.first + span.expected) if segment.sampled_frames is None else segment.sampled_frames
    )


@pytest.mark.parametrize("fps", [24.0, 30.0, 60.0, 30000 / 1001, 24000 / 1001])
@pytest.mark.parametrize("tick", [Fraction(1, 1000), Fraction(1, 600), Fraction(1, 90_000), Fraction(1, 16_000)])
def test_sampling_allows_for_the_rounding_of_clocks(fps: float, tick: Fraction) -> None:
    """Matroska rounds to milliseconds, which a copy in MP4 keeps in finer ticks; QuickTime rounds to 1/600 s."""
    rounded_s = np.round(np.arange(120) / fps * 1000) / 1000 if tick.denominator == 16_000 else np.arange(120) / fps
    info = replace(_info(np.round(rounded_s / float(tick)).astype(np.int64), np.arange(0, 120, 12)), time_base=tick)
    for every in (1, 2, 4):
        (whole,) = cut_into_segments(Input("x", "x"), info, 1e9, 4, fps / every)
        assert _looked_at(whole) == list(range(0, 120, every))
        segments = cut_into_segments(Input("x", "x"), info, 0.5, 4, fps / every)
        assert {index for segment in segments for index in _looked_at(segment)} == set(range(0, 120, every))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.flv", "flv")]
)
def test_sampling_is_even_in_every_container(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, scene(50, (64, 48), face=40), codec=codec, times=range(50), tick=Fraction(1, 30))
    for every in (1, 2):
        (segment,) = cut_into_segments(Input(str(path), name), probe(str(path)), None, 4, 30 / every)
        assert _looked_at(segment) == list(range(0, 50, every))


def test_a_rate_that_is_a_little_lower_than_that_of_a_rounded_clock_leaves_out_single_frames() -> None:
    pts = np.round(np.arange(60_000) * 1001 / 30).astype(np.int64)
    info = replace(_info(pts, np.arange(1)), time_base=Fraction(1, 1000))
    (segment,) = cut_into_segments(Input("x", "x"), info, 1e9, 4, 29.97)
    assert segment.frames == 59_999


@pytest.mark.parametrize(
    ("times_ms", "restarts", "sampled"),
    [
        ([0, 20, 40, 240, 260, 280], (), [0, 3]),  # no frame lies in the second slot
        ([0, 98, 199, 297], (), [0, 2, 3]),  # 199 may be the end of the second slot, and 297 is in the third one
        ([0, 40, 80, 120, 0, 40, 80, 120], (4,), [0, 3, 4, 7]),
        ([0, 40, 0, 40, 80], (2,), [0, 2]),  # both parts begin in the first slot
    ],
)
def test_each_slot_in_which_frames_lie_has_one(times_ms: list[int], restarts: tuple[int, ...], sampled: list) -> None:
    info = replace(_info(np.array(times_ms), np.zeros(0, int)), time_base=Fraction(1, 1000), restarts=restarts)
    (segment,) = cut_into_segments(Input("x", "x"), info, 1e9, 4, sample_fps=10.0)
    assert _looked_at(segment) == sampled


def test_sampling_allows_for_the_hundredths_of_gif_and_takes_frame_counters_as_exact() -> None:
    gif = replace(_info(np.round(np.arange(60) / 15 * 100).astype(np.int64), np.arange(1)), time_base=Fraction(1, 100))
    (segment,) = cut_into_segments(Input("x", "x"), gif, 1e9, 4, 15.0)
    assert _looked_at(segment) == list(range(60))
    avi = replace(_info(np.arange(120), np.arange(1)), time_base=Fraction(1, 120))
    (segment,) = cut_into_segments(Input("x", "x"), avi, 1e9, 4, 30.0)
    assert _looked_at(segment) == list(range(0, 120, 4))


def test_a_video_without_times_is_sampled_by_its_average_rate() -> None:
    info = replace(_info(np.arange(500), np.zeros(0, int)), pts=None, exact=False, duration_s=20.0)
    (segment,) = cut_into_segments(Input("x", "x", 2.0, 4.0), info, 1.0, 4, sample_fps=5)
    assert segment.sampled_frames == (50, 55, 60, 65, 70, 75, 80, 85, 90, 95)
    assert (segment.write_start, segment.write_stop, segment.frames) == (50, 96, 10)


@given(
    st.integers(1, 300), st.integers(1, 40), st.floats(0.04, 8.0), st.integers(0, 6), st.floats(0.0, 3.0),
    st.integers(0, 99),
)  # fmt: skip
def test_a_segment_decodes_the_longest_gap_before_what_it_owns(
    count: int, group: int, segment_s: float, radius: int, gap_s: float, seed: int
) -> None:
    pts = np.cumsum(np.random.default_rng(seed).integers(1, 9, count))
    info = _info(pts, np.arange(0, count, group))
    segments = cut_into_segments(Input("x", "x"), info, segment_s, radius, max_gap_s=gap_s)
    owned = []
    for segment in segments:
        stop = count if segment.write_stop is None else segment.write_stop
        assert stop > segment.write_start
        owned += range(segment.write_start, stop)
        first, last = segment.span.first, segment.span.first + segment.span.expected - 1
        assert first <= max(0, segment.write_start - max(radius, 1))
        assert last >= min(count - 1, stop - 1 + radius)
        if first > 0 and gap_s > 0:
            assert (pts[segment.write_start] - pts[first]) / 25 >= gap_s
    assert owned == list(range(count))


def test_a_single_image_is_looked_at_at_any_rate_and_has_no_part_in_time() -> None:
    info = replace(_info(np.zeros(1, np.int64), np.zeros(0, np.int64)), pts=None, start_s=None, duration_s=None)
    info = replace(info, exact=False)
    (segment,) = cut_into_segments(Input("a.png", "a.png"), info, 20.0, 4, sample_fps=5)
    assert (segment.frames, segment.sampled_frames) == (1, None)
    for part in ({"start_s": 1.0}, {"end_s": 1.0}):
        with pytest.raises(NoClockError):
            cut_into_segments(Input("a.png", "a.png", **part), info, 20.0, 4)
    with pytest.raises(NoClockError):
        cut_into_segments(Input("s/", "s"), replace(info, frames_expected=2), 20.0, 4, sample_fps=5)
