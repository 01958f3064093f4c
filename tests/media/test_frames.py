"""Frames: every frame once, upright, with the times of PyAV; damage affects only its group of pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from aupipe.annotation.inputs import Input
from aupipe.annotation.segments import cut_into_segments
from aupipe.media.container import open_video
from aupipe.media.frames import frame_at, frames, frames_at
from aupipe.media.probe import probe
from harness import oddities
from harness.clips import damage, decoded_times, scene, truncate, write_clip

pytestmark = pytest.mark.unit

IMAGES = scene(60, size=(96, 72), face=64)
VARIABLE = [0, 33, 70, *(70 + 120 * i for i in range(1, 58))]


@pytest.mark.parametrize(
    ("name", "codec", "times", "options"),
    [
        ("h264.mp4", "libx264", None, {"g": "12", "bf": "2"}),
        ("open.mkv", "libx264", None, {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
        ("hevc.mov", "libx265", None, {"g": "12", "x265-params": "log-level=none"}),
        ("variable.mp4", "libx264", VARIABLE, {"g": "12", "bf": "2"}),
        ("late.mp4", "libx264", [5000 + 40 * i for i in range(60)], {}),
        ("vp9.webm", "libvpx-vp9", None, {"deadline": "realtime", "cpu-used": "8"}),
        ("mpeg4.avi", "mpeg4", None, {"g": "12"}),
        ("mpeg2.mpg", "mpeg2video", None, {"g": "12", "bf": "2"}),
        ("mjpeg.avi", "mjpeg", None, {}),
        ("one.mp4", "libx264", None, {}),
    ],
)
def test_every_frame_once_at_its_media_time(
    tmp_path: Path, name: str, codec: str, times: list[int] | None, options: dict[str, str]
) -> None:
    images = IMAGES[:1] if name == "one.mp4" else IMAGES
    tick = Fraction(1, 25) if name.endswith((".avi", ".mpg")) else Fraction(1, 1000)
    path = write_clip(tmp_path / name, images, codec=codec, times=times, tick=tick, options=options)
    got = list(frames(str(path)))
    assert [frame.time_s for frame in got] == decoded_times(path)
    assert [frame.index for frame in got] == list(range(len(images)))
    assert all(frame.image is not None and not frame.corrupt for frame in got)


@pytest.mark.parametrize("name", ["open.mkv", "uncut.avi", "joined.ts", "cut short.mp4", "raw.h264"])
def test_a_frame_by_its_number_is_that_of_the_whole(tmp_path: Path, name: str) -> None:
    """Containers that can be cut, that cannot, with two clocks, with missing frames, and without times."""
    options = {"g": "10", "bf": "3", "x264-params": "open-gop=1"}
    muxer = {"movflags": "faststart"} if name == "cut short.mp4" else None
    tick = Fraction(1, 25 if name == "uncut.avi" else 1000)
    path = write_clip(tmp_path / name, IMAGES, options=options, tick=tick, muxer=muxer)
    if name == "joined.ts":
        path.write_bytes(path.read_bytes() * 2)
    if name == "cut short.mp4":
        path = truncate(path)
    whole, info = list(frames(str(path))), probe(str(path))
    count = len(whole) if name != "cut short.mp4" else info.frames_expected - info.missing
    assert len(whole) == info.frames_expected > 30
    for index in (0, 1, 9, 10, 11, count - 1):
        np.testing.assert_array_equal(frame_at(str(path), info, index), whole[index].image)
    for index in (-1, count, count + 1):
        assert frame_at(str(path), info, index) is None


@pytest.mark.parametrize(("name", "passes"), [("cut.mkv", 3), ("uncut.ts", 1)])
def test_several_frames_of_a_container_that_cannot_be_cut_are_decoded_in_one_pass(
    name: str, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_clip(tmp_path / name, IMAGES, options={"g": "10", "bf": "3"}))
    whole, info = list(frames(path)), probe(path)
    opened: list[str] = []

    def counted(uri: str, *args: Any, **kwargs: Any) -> Any:
        opened.append(uri)
        return open_video(uri, *args, **kwargs)

    monkeypatch.setattr("aupipe.media.frames.open_video", counted)
    found = list(frames_at(path, info, {30, 2, 17}))
    assert [index for index, _ in found] == [2, 17, 30]
    for index, image in found:
        np.testing.assert_array_equal(image, whole[index].image)
    assert len(opened) == passes
    assert list(frames_at(path, info, [])) == []


@pytest.mark.parametrize(("name", "passes"), [("closed.mp4", 3), ("open.mkv", 3), ("cut short.mkv", 2)])
def test_frames_between_two_key_frames_are_decoded_in_one_pass(
    name: str, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"g": "10", "bf": "3", "x264-params": "open-gop=1" if name == "open.mkv" else "open-gop=0"}
    path = write_clip(tmp_path / name, IMAGES, options=options)
    path = truncate(path) if name == "cut short.mkv" else path
    info = probe(str(path))
    wanted = [-1, 1, 2, 9, 10, 17, 31, 35, 39, 1000]
    alone = [(index, frame_at(str(path), info, index)) for index in wanted]
    opened: list[str] = []

    def counted(uri: str, *args: Any, **kwargs: Any) -> Any:
        opened.append(uri)
        return open_video(uri, *args, **kwargs)

    monkeypatch.setattr("aupipe.media.frames.open_video", counted)
    for (index, image), (same, expected) in zip(frames_at(str(path), info, wanted), alone, strict=True):
        assert index == same
        np.testing.assert_array_equal(image, expected)
    assert len(opened) == passes


@pytest.mark.parametrize("name", ["closed.mp4", "open.mkv", "variable.mp4", "unflagged.mkv"])
def test_segments_give_the_same_frames_as_the_whole(tmp_path: Path, name: str) -> None:
    options = {"g": "10", "bf": "3", "x264-params": "open-gop=1" if name == "open.mkv" else "open-gop=0"}
    path = write_clip(tmp_path / name, IMAGES, times=VARIABLE if name == "variable.mp4" else None, options=options)
    if name == "unflagged.mkv":  # The index of a file whose blocks are no key frames is empty.
        coded = oddities.packets(
            "libx264", IMAGES, "yuv420p", {"g": "10", "bf": "0", "x264-params": "repeat-headers=1"}
        )
        oddities.mux(path, [(data, pts, False) for data, _, pts in coded], (96, 72), Fraction(1, 25))
    whole = list(frames(str(path)))
    segments = cut_into_segments(Input(str(path), name), probe(str(path)), segment_s=0.5, smoothing_radius=2)
    assert len(segments) > 2
    for segment in segments:
        part = list(frames(str(path), segment.span))
        expected = whole[segment.span.first : segment.span.first + segment.span.expected]
        assert [(f.index, f.time_s) for f in part] == [(f.index, f.time_s) for f in expected]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(part, expected, strict=True))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_pictures_become_upright(tmp_path: Path, rotation: int) -> None:
    upright = scene(3, size=(96, 64), face=48)
    stored = [np.ascontiguousarray(np.rot90(image, -rotation // 90)) for image in upright]
    options = {"crf": "1", "preset": "ultrafast"}
    path = write_clip(tmp_path / "turned.mp4", stored, rotation=rotation, options=options)
    assert probe(str(path)).rotation % 360 == rotation
    for frame, image in zip(frames(str(path)), upright, strict=True):
        assert frame.image is not None
        assert np.abs(frame.image.astype(int) - image).mean() < 4


@pytest.mark.parametrize(("key_frame", "size"), [(True, 2048), (False, 120)])
def test_damage_affects_only_frames_of_its_group_of_pictures(tmp_path: Path, key_frame: bool, size: int) -> None:
    path = write_clip(tmp_path / "clip.mp4", scene(120), options={"g": "12", "bf": "2", "crf": "18"})
    sound = list(frames(str(path)))
    at = damage(path, size, key_frame)
    got = list(frames(str(path)))
    assert [(f.index, f.time_s) for f in got] == [(f.index, f.time_s) for f in sound]
    differs = [a.index for a, b in zip(got, sound, strict=True) if not np.array_equal(a.image, b.image)]
    assert differs
    assert at - 3 <= min(differs) <= max(differs) <= at + 14  # the group of pictures that the damage hit
    assert any(frame.image is None or frame.corrupt for frame in got)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["closed.mp4", "open.mkv", "joined.ts"])
def test_segments_of_a_damaged_file_give_the_same_frames_as_the_whole(tmp_path: Path, name: str, seed: int) -> None:
    options = {"g": "10", "bf": "2", "crf": "18", "x264-params": f"open-gop={int(name == 'open.mkv')}"}
    path = write_clip(tmp_path / name, scene(120, size=(160, 120), face=90), options=options)
    content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for _ in range(1 + seed % 4):
        length = int(random.choice([1, 64, 800]))
        start = int(random.integers(len(content) // 10, len(content) * 9 // 10 - length))
        content[start : start + length] = random.bytes(length)
    path.write_bytes(content)
    whole, info = list(frames(str(path))), probe(str(path))
    for max_gap_s in (0.1, 1.0):  # moves the ends of segments
        for segment in cut_into_segments(Input(str(path), name), info, 0.5, 2, max_gap_s=max_gap_s):
            part = list(frames(str(path), segment.span))
            expected = whole[segment.span.first : segment.span.first + segment.span.expected]
            assert [f.index for f in part] == [f.index for f in expected]
            assert [f.corrupt for f in part] == [f.corrupt for f in expected]
            assert [(f.image is None) for f in part] == [(f.image is None) for f in expected]
            assert all(np.array_equal(a.image, b.image) for a, b in zip(part, expected, strict=True))


def test_avi_frames_come_in_the_order_of_the_picture(tmp_path: Path) -> None:
    # FFmpeg makes times for AVI packets in decoding order; sorting by them would shuffle reordered frames.
    images = [np.full((72, 96, 3), 4 * number + 8, np.uint8) for number in range(60)]
    path = write_clip(tmp_path / "a.avi", images, tick=Fraction(1, 25), options={"g": "12", "bf": "3", "crf": "1"})
    levels = [frame.image.mean() for frame in frames(str(path)) if frame.image is not None]
    assert levels == sorted(levels)
    assert len(levels) == 60


def test_frames_after_a_hole_in_an_avi_keep_the_times_of_its_index(tmp_path: Path) -> None:
    images = [np.full((72, 96, 3), 4 * number + 8, np.uint8) for number in range(40)]
    path = write_clip(tmp_path / "a.avi", images, codec="mjpeg", tick=Fraction(1, 25))
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[places[10] - 8 : places[13] - 8] = bytes(places[13] - places[10])
    path.write_bytes(data)
    got = list(frames(str(path)))
    assert [frame.index for frame in got if frame.image is None] == [10, 11, 12]
    assert [frame.time_s for frame in got] == [pytest.approx(number / 25) for number in range(40)]
    for frame in got:
        assert frame.image is None or abs(frame.image.mean() - (4 * frame.index + 8)) < 3
    assert probe(str(path)).missing == 3


def test_frames_with_duplicate_times_are_all_returned(tmp_path: Path) -> None:
    times = [40 * (number // 2) for number in range(20)]
    path = write_clip(tmp_path / "a.mkv", IMAGES[:20], times=times, codec="ffv1")
    path = path.rename(write_clip(tmp_path / "b.mkv", IMAGES[:1]))
    assert [frame.time_s for frame in frames(str(path))] == [time / 1000 for time in times]


def test_frames_that_only_the_index_lists_are_lost_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(60), options={"g": "12"}, muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    info = probe(str(path))
    got = list(frames(str(path)))
    assert info.frames_expected == len(got) == 60
    assert [frame.index for frame in got] == list(range(60))
    assert info.missing > 0
    assert all(frame.image is None for frame in got[60 - info.missing :])
    assert all(frame.image is not None for frame in got[:10])


def test_a_truncated_file_keeps_its_remaining_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", scene(120), options={"g": "12"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    got = list(frames(str(path)))
    assert 40 < len(got) < 120
    assert sum(frame.image is None for frame in got) <= 1
    assert probe(str(path)).missing_s > 1


def test_frames_hidden_by_an_edit_list_are_not_returned(tmp_path: Path) -> None:
    # A negative first time becomes an edit list in mp4: those frames are decoded but not displayed.
    path = write_clip(tmp_path / "edit.mp4", IMAGES, times=[40 * i - 200 for i in range(60)], options={"bf": "0"})
    with av.open(str(path)) as container:
        hidden = sum(packet.is_discard for packet in container.demux(video=0) if packet.size)
    assert hidden == 5
    assert [frame.time_s for frame in frames(str(path))] == decoded_times(path)
    assert probe(str(path)).frames_expected == 55
