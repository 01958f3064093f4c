"""Packets that are not one frame each: the counted pictures are those that the decoder returns."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe.media.frames import frames
from aupipe.media.pictures import picture_counter
from aupipe.media.probe import probe
from harness import oddities
from harness.clips import from_key_frame, scene, write_clip

pytestmark = pytest.mark.unit

IMAGES = scene(14, size=(96, 64), face=56)
LONGER = scene(24, size=(96, 64), face=56)
TICK = Fraction(1, 25)
TIMES = [1 + number / 25 for number in range(14)]


def counts(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        counter = picture_counter(stream)
        return [counter.count(packet) for packet in container.demux(stream) if packet.size]


def field_units(separate: bool) -> list[tuple[bytes, int | None, bool]]:
    units: list[tuple[bytes, int | None, bool]] = []
    for number, (top, bottom) in enumerate(oddities.field_pairs(IMAGES)):
        pts, key = 50 + 2 * number, number % 12 == 0
        units += [(top, pts, key), (bottom, pts + 1, False)] if separate else [(top + bottom, pts, key)]
    return units


def check_frames(path: Path) -> None:
    """Check that a clip has the frames of `IMAGES` at `TIMES`, and none is lost."""
    info = probe(str(path))
    assert (info.frames_expected, info.missing, info.missing_s, info.damage) == (14, 0, 0, "")
    got = list(frames(str(path)))
    assert [frame.time_s for frame in got] == pytest.approx(TIMES)
    for frame, image in zip(got, IMAGES, strict=True):
        assert frame.image is not None
        assert np.abs(frame.image.astype(int) - image).mean() < 6


@pytest.mark.parametrize(("name", "separate"), [("a.ts", True), ("a.mkv", True), ("a.mts", False)])
def test_two_fields_are_one_frame_at_the_time_of_the_first(tmp_path: Path, name: str, separate: bool) -> None:
    path = oddities.mux(tmp_path / name, field_units(separate), (96, 64), Fraction(1, 50))
    assert counts(path) == [1, 0] * 14
    check_frames(path)


@pytest.mark.parametrize(
    ("name", "separate"), [("a.ts", True), ("a.ts", False), ("a.mkv", True), ("a.mkv", False), ("a.mp4", True)]
)
def test_two_fields_of_mpeg2_are_one_frame(name: str, separate: bool, tmp_path: Path) -> None:
    fields = oddities.mpeg2_fields(IMAGES)
    step = 1 if separate else 2
    units = [(b"".join(fields[n : n + step]), 50 + n, n % 2 == 0) for n in range(0, 28, step)]
    path = oddities.mux(tmp_path / name, units, (96, 64), Fraction(1, 50), "mpeg2video")
    assert sum(counts(path)) == 14
    check_frames(path)


@pytest.mark.parametrize("suffix", ["webm", "ivf"])
def test_the_largest_layer_of_vp9_is_the_picture(suffix: str, tmp_path: Path) -> None:
    options = {
        "g": "1",
        "auto-alt-ref": "0",
        "lag-in-frames": "0",
        "deadline": "realtime",
        "cpu-used": "8",
        "crf": "10",
    }
    layers = [
        [data for data, _, _ in oddities.packets("libvpx-vp9", images, "yuv420p", options)]
        for images in ([cv2.resize(image, (48, 32)) for image in IMAGES], IMAGES)
    ]
    units = []
    for number, pair in enumerate(zip(*layers, strict=True)):
        mark = bytes([0b110_11_001])  # an index of two frames, sizes of four bytes
        index = mark + b"".join(len(data).to_bytes(4, "little") for data in pair) + mark
        units.append((b"".join(pair) + index, number, True))
    path = oddities.mux(tmp_path / f"a.{suffix}", units, (96, 64), TICK, "vp9")
    info = probe(str(path))
    assert (info.width_px, info.height_px, info.frames_expected) == (96, 64, 14)
    got = list(frames(str(path)))
    assert [frame.time_s for frame in got] == pytest.approx([time - 1 for time in TIMES])
    for frame, image in zip(got, IMAGES, strict=True):
        assert frame.image is not None
        assert np.abs(frame.image.astype(int) - image).mean() < 8


def test_a_field_without_its_second_field_is_a_frame(tmp_path: Path) -> None:
    units = [unit for number, unit in enumerate(field_units(separate=True)) if number != 11]
    path = oddities.mux(tmp_path / "a.ts", units, (96, 64), Fraction(1, 50))
    assert sum(counts(path)) == 14
    assert [frame.time_s for frame in frames(str(path))] == pytest.approx(TIMES)


def test_interlaced_frames_coded_as_frames_are_one_packet_each(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", IMAGES, options={"x264-params": "tff=1", "preset": "veryfast"})
    assert counts(path) == [1] * 14


@pytest.mark.parametrize("b_frames", [1, 2])
def test_two_frames_in_a_chunk_and_none_in_a_later_one(tmp_path: Path, b_frames: int) -> None:
    path = oddities.write_avi(tmp_path / "a.avi", oddities.packed(IMAGES, b_frames), (96, 64), b"DX50")
    assert set(counts(path)) == {0, 1, 2}
    assert probe(str(path)).frames_expected == 14
    assert [frame.time_s for frame in frames(str(path))] == pytest.approx([time - 1 for time in TIMES])
    assert all(frame.image is not None for frame in frames(str(path)))


def test_a_plane_that_is_not_coded_is_not_a_frame(tmp_path: Path) -> None:
    chunks = [(data, key) for data, key, _ in oddities.packets("mpeg4", IMAGES, "yuv420p", {"g": "7"})]
    chunks.insert(5, (oddities.NOT_CODED, False))
    path = oddities.write_avi(tmp_path / "a.avi", chunks, (96, 64), b"XVID")
    assert counts(path) == [1] * 5 + [0] + [1] * 9
    times = [number / 25 for number in range(15) if number != 5]
    assert [frame.time_s for frame in frames(str(path))] == pytest.approx(times)
    assert probe(str(path)).frames_expected == 14


def test_a_damaged_header_counts_as_a_picture(tmp_path: Path) -> None:
    units = [
        (data[:12] if number == 6 else data, pts, key) for number, (data, pts, key) in enumerate(field_units(True))
    ]
    path = oddities.mux(tmp_path / "a.ts", units, (96, 64), Fraction(1, 50))
    got = list(frames(str(path)))
    assert 13 <= len([frame for frame in got if frame.image is not None]) <= 14
    assert [frame.index for frame in got] == list(range(len(got)))


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("mpeg2video", "mpg"), *product(("mpeg2video", "libx264", "libx265"), ("ts", "mkv", "mp4"))],
)
def test_frames_that_need_others_from_before_the_file_are_no_loss(codec: str, suffix: str, tmp_path: Path) -> None:
    parameters = "keyint=6:min-keyint=6:open-gop=1:bframes=2:b-adapt=0:scenecut=0"
    options = {
        "mpeg2video": {"g": "6", "bf": "2", "b": "2M"},
        "libx264": {"x264-params": parameters},
        "libx265": {"x265-params": parameters + ":log-level=none:pools=none:frame-threads=1"},
    }[codec]
    whole = write_clip(tmp_path / f"whole.{suffix}", LONGER, codec=codec, tick=TICK, options=options)
    path = from_key_frame(whole, tmp_path / f"cut.{suffix}")
    with av.open(str(path)) as container:
        packets = sum(bool(packet.size) for packet in container.demux(video=0))
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert packets > len(times)
    info = probe(str(path))
    assert (info.frames_expected, info.missing, info.damage) == (len(times), 0, "")
    assert info.remark == "" if suffix == "mp4" else f"are not shown: {packets - len(times)}" in info.remark
    got = list(frames(str(path)))
    assert [frame.time_s for frame in got] == times
    assert all(frame.image is not None for frame in got)
    assert probe(str(whole)).frames_expected == len(list(frames(str(whole)))) == 24


def test_leading_frames_without_a_time_are_no_loss(tmp_path: Path) -> None:
    parameters = "keyint=6:min-keyint=6:open-gop=1:bframes=2:b-adapt=0:scenecut=0"
    options = {"x265-params": parameters + ":log-level=none:pools=none:frame-threads=1"}
    whole = write_clip(tmp_path / "whole.mp4", LONGER, codec="libx265", tick=TICK, options=options)
    path = from_key_frame(whole, tmp_path / "cut.mkv", to_zero=True)  # FFmpeg drops negative times of Matroska
    with av.open(str(path)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    info = probe(str(path))
    assert (info.frames_expected, info.leading) == (len(times) - times.count(None), times.count(None))
    assert (info.leading > 0, info.exact, info.missing, info.damage) == (True, True, 0, "")
    got = list(frames(str(path)))
    assert [frame.time_s for frame in got] == pytest.approx([number / 25 for number in range(info.frames_expected)])
    assert all(frame.image is not None for frame in got)


def test_a_first_key_frame_that_is_damaged_is_a_loss(tmp_path: Path) -> None:
    options = {"g": "6", "bf": "2", "b": "2M"}
    whole = write_clip(tmp_path / "whole.mkv", LONGER, codec="mpeg2video", tick=TICK, options=options)
    path = from_key_frame(whole, tmp_path / "cut.mkv")
    assert probe(str(path)).frames_expected == 18
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        assert packet.pos is not None
        data = bytearray(path.read_bytes())
        data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    path.write_bytes(data)
    assert probe(str(path)).frames_expected == len(list(frames(str(path)))) == 20


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_comment_of_a_gif_is_no_picture(tmp_path: Path, count: int, place: str) -> None:
    path = write_clip(
        tmp_path / "a.gif", scene(count, size=(96, 64), face=56), codec="gif", tick=Fraction(1, 100), pix_fmt="rgb8"
    )
    whole = path.read_bytes()
    at = {"first": whole.index(b"!\xf9"), "middle": whole.rindex(b"!\xf9"), "last": len(whole) - 1}[place]
    path.write_bytes(whole[:at] + b"!\xfe\x05first\x06second\0" + whole[at:])
    assert (probe(str(path)).frames_expected, probe(str(path)).damage) == (count, "")
    assert [frame.image is None for frame in frames(str(path))] == [False] * count
    if place == "last":  # cut after the comment, and within it
        for size in (1, 5):
            path.write_bytes((whole[:at] + b"!\xfe\x05first\x06second\0" + whole[at:])[:-size])
            assert probe(str(path)).frames_expected == count
