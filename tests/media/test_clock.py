"""Clocks: read from the container, in file order if streams are joined, and null for streams without a clock."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe.annotation.inputs import Input
from aupipe.annotation.segments import cut_into_segments
from aupipe.annotation.settings import AnnotateConfig
from aupipe.errors import NoClockError
from aupipe.media.frames import frames
from aupipe.media.probe import probe
from harness import oddities, single_process
from harness.clips import decoded_times, from_key_frame, scene, write_clip

pytestmark = pytest.mark.unit

IMAGES = [np.full((72, 96, 3), 8 * number + 8, np.uint8) for number in range(12)]
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"}
RAW = [
    ("a.264", "libx264", "h264", {}), ("a.265", "libx265", "hevc", X265), ("a.m2v", "mpeg2video", "mpeg2video", {}),
    ("a.m4v", "mpeg4", "m4v", {}), ("a.mjpeg", "mjpeg", "mjpeg", {}),
    ("a.obu", "libsvtav1", "obu", {"preset": "11", "svtav1-params": "lp=1"}),
]  # fmt: skip


def joined(tmp_path: Path, suffix: str, codec: str, starts: tuple[int, ...]) -> Path:
    """Write a file of joined streams, each of twelve frames that begin at one of `starts` (ms)."""
    parts = []
    for number, start in enumerate(starts):
        times = [start + 40 * index for index in range(12)]
        tick = Fraction(1, 25) if codec == "mpeg2video" else Fraction(1, 1000)
        own = None if codec == "mpeg2video" else times
        parts.append(write_clip(tmp_path / f"{number}.{suffix}", IMAGES, codec=codec, times=own, tick=tick))
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("mpg", "mpeg2video")])
def test_joined_streams_keep_the_order_of_the_file(tmp_path: Path, suffix: str, codec: str) -> None:
    path = joined(tmp_path, suffix, codec, (0, 0, 0))
    info = probe(str(path))
    assert info.restarts == (12, 24)
    assert info.duration_s == pytest.approx(3 * 0.48)
    assert (info.frames_expected, info.missing_s, info.damage, len(info.key_pts)) == (36, 0, "", 0)
    got = list(frames(str(path)))
    once = decoded_times(tmp_path / f"0.{suffix}")
    assert [frame.time_s for frame in got] == pytest.approx(once * 3)
    assert [frame.index for frame in got if frame.restart] == [12, 24]
    levels = [frame.image.mean() for frame in got if frame.image is not None]
    assert np.abs(np.array(levels) - np.tile([image.mean() for image in IMAGES], 3)).max() < 5


def test_parts_of_joined_files_that_ffmpeg_does_not_read_are_damage(tmp_path: Path) -> None:
    info = probe(str(joined(tmp_path, "mkv", "libx264", (0, 0))))
    assert (info.frames_expected, info.restarts, info.damage) == (24, (12,), "")
    info = probe(str(joined(tmp_path, "mkv", "libx264", (0, 0, 0))))  # FFmpeg stops after the second
    assert "another file is joined to it" in info.damage
    info = probe(str(joined(tmp_path, "mp4", "libx264", (0, 0))))
    assert (info.frames_expected, "another file is joined to it" in info.damage) == (12, True)


@pytest.mark.parametrize("size", [(96, 72), (48, 36), (192, 144)])
@pytest.mark.parametrize("muxer", [{}, {"mpegts_pmt_start_pid": "800", "mpegts_service_id": "7"}])
def test_another_track_of_a_joined_transport_stream_is_damage(
    muxer: dict[str, str], size: tuple[int, int], tmp_path: Path
) -> None:
    first = write_clip(tmp_path / "a.ts", IMAGES).read_bytes()
    muxer = {"mpegts_start_pid": "512"} | muxer
    images = [cv2.resize(image, size) for image in IMAGES]
    second = write_clip(tmp_path / "b.ts", images, muxer=muxer).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(first + second)
    record, rows = single_process.annotate(path, tmp_path / "out")
    assert (record["status"], record["frames_decoded"], len(rows)) == ("partial", 12, 12)
    assert "(another video track precedes or follows this one, and is not read)" in record["reason"]
    assert all(probe(str(path), track=track).damage == "" for track in range(probe(str(path)).tracks))


def test_tracks_of_a_transport_stream_beside_each_other_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "two.ts"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg2video", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for number, image in enumerate(IMAGES):
            for stream in streams[: 1 if number in (0, 11) else 2]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    assert probe(str(path)).damage == ""
    assert probe(str(path), track=1).damage == ""


def test_frames_that_ffmpeg_leaves_out_where_fragments_begin_anew_are_damage(tmp_path: Path) -> None:
    muxer, options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}, {"g": "4", "bf": "0"}
    path = write_clip(tmp_path / "a.mp4", IMAGES, muxer=muxer, options=options)
    assert (probe(str(path)).frames_expected, probe(str(path)).damage) == (12, "")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"mfra") - 4] + data[data.index(b"moof") - 4 :])  # as of a second session
    info = probe(str(path))
    assert (info.frames_expected, info.restarts) == (20, (12,))
    assert "left out" in info.damage


def test_a_continuous_clock_has_no_restart(tmp_path: Path) -> None:
    info = probe(str(joined(tmp_path, "ts", "libx264", (0, 600))))
    assert (info.restarts, info.frames_expected) == ((), 24)


def test_a_clock_of_33_bits_wraps_around_without_a_restart(tmp_path: Path) -> None:
    # 2**33 ticks of 1/90000 s are 95,443.72 s.
    got = list(frames(str(joined(tmp_path, "ts", "libx264", (95_443_500,)))))
    times = np.array([frame.time_s for frame in got], float)
    assert np.diff(times) == pytest.approx(0.04, abs=1e-4)
    assert times[0] < 2**33 / 90_000 < times[-1]
    assert not any(frame.restart for frame in got)


def test_a_stream_with_much_earlier_times_keeps_them(tmp_path: Path) -> None:
    # FFmpeg would add 26.5 hours, because it takes times over a minute before the first one for a wrap.
    got = list(frames(str(joined(tmp_path, "ts", "libx264", (90_000_000, 500_000)))))
    assert [frame.index for frame in got if frame.restart] == [12]
    assert got[12].time_s == pytest.approx(500, abs=0.2)


def test_ranges_and_rates_go_by_the_time_of_each_frame(tmp_path: Path) -> None:
    path = joined(tmp_path, "ts", "libx264", (0, 0))
    origin = decoded_times(tmp_path / "0.ts")[0]
    video = Input(str(path), "v", start_s=origin + 0.07, end_s=origin + 0.13)
    (segment,) = cut_into_segments(video, probe(str(path)), 20.0, 4)
    assert segment.sampled_frames == (2, 3, 14, 15)
    (segment,) = cut_into_segments(Input(str(path), "v"), probe(str(path)), 20.0, 4, sample_fps=5)
    assert segment.sampled_frames == (0, 5, 10, 12, 17, 22)


def test_ranges_and_rates_go_by_times_that_two_frames_share(tmp_path: Path) -> None:
    # Fast frames and slow ones: the average rate is that of neither.
    times = [0, 0, *range(40, 600, 40), *range(600, 4600, 400)]
    path = write_clip(tmp_path / "a.mkv", [IMAGES[0]] * len(times), times=times)
    info = probe(str(path))
    assert not info.exact
    (segment,) = cut_into_segments(Input(str(path), "v", start_s=2.1, end_s=3.5), info, 20.0, 4)
    assert [times[index] for index in segment.written_frames] == [2200, 2600, 3000, 3400]
    (segment,) = cut_into_segments(Input(str(path), "v"), info, 20.0, 4, sample_fps=1)
    assert [times[index] for index in segment.written_frames] == [0, 1000, 2200, 3000, 4200]


def test_ranges_and_rates_allow_for_frames_whose_time_is_damaged(tmp_path: Path) -> None:
    # The reception fails for 26 s, so that the average rate is that of no part of the recording.
    images = [np.full((72, 96, 3), 60 + number, np.uint8) for number in range(100)]
    times = [40 * number + 26_000 * (number >= 50) for number in range(100)]
    path = write_clip(tmp_path / "a.ts", images, times=times, options={"bf": "2", "preset": "veryfast"})
    data, place = bytearray(path.read_bytes()), -1
    for _ in range(20):
        place = data.index(b"\0\0\1\xe0", place + 1)  # the header of a picture's packet
    data[place + 7] &= 0x3F  # It has no times.
    path.write_bytes(data)
    info, shown = probe(str(path)), [frame.time_s for frame in frames(str(path))]
    assert (len(shown), shown.count(None)) == (100, 1)
    (segment,) = cut_into_segments(Input(str(path), "v", start_s=29.0, end_s=29.2), info, 20.0, 4)
    assert [shown[index] for index in segment.written_frames] == pytest.approx([29.0, 29.04, 29.08, 29.12, 29.16])
    lost = shown.index(None)
    around = Input(str(path), "v", start_s=shown[lost - 2], end_s=shown[lost + 3])
    (segment,) = cut_into_segments(around, info, 20.0, 4)
    assert lost in segment.written_frames


@pytest.mark.parametrize(("name", "codec", "form", "options"), RAW)
def test_an_elementary_stream_has_no_times(
    tmp_path: Path, name: str, codec: str, form: str, options: dict[str, str]
) -> None:
    path = write_clip(tmp_path / name, IMAGES, codec=codec, form=form, tick=Fraction(1, 25), options=options)
    info = probe(str(path))
    assert (info.start_s, info.duration_s, info.pts, info.frames_expected) == (None, None, None, 12)
    assert [frame.time_s for frame in frames(str(path))] == [None] * 12
    with pytest.raises(NoClockError, match="assume_fps"):
        cut_into_segments(Input(str(path), "v", end_s=1.0), info, 20.0, 4)
    with pytest.raises(NoClockError, match="assume_fps"):
        cut_into_segments(Input(str(path), "v"), info, 20.0, 4, sample_fps=5)


@pytest.mark.parametrize(("name", "codec", "form", "options"), RAW[:3])
def test_the_assumed_rate_is_the_clock_of_an_elementary_stream(
    tmp_path: Path, name: str, codec: str, form: str, options: dict[str, str]
) -> None:
    path = write_clip(tmp_path / name, IMAGES, codec=codec, form=form, tick=Fraction(1, 25), options=options)
    record, rows = single_process.annotate(path, tmp_path / "out", AnnotateConfig(assume_fps=90))
    assert rows["time_s"].to_pylist() == pytest.approx([number / 90 for number in range(12)])
    assert record["duration_s"] == pytest.approx(12 / 90)
    part = AnnotateConfig(assume_fps=90, sample_fps=30)
    _, rows = single_process.annotate(path, tmp_path / "out", part)
    assert rows["frame"].to_pylist() == [0, 3, 6, 9]


def test_the_assumed_rate_is_ignored_if_there_is_a_clock(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", IMAGES)
    _, rows = single_process.annotate(path, tmp_path / "out", AnnotateConfig(assume_fps=90))
    assert rows["time_s"].to_pylist() == pytest.approx([number / 25 for number in range(12)])


@pytest.mark.parametrize("tape", [True, False])
def test_both_kinds_of_tape_in_avi_have_the_same_times(tmp_path: Path, tape: bool) -> None:
    images = scene(4, size=(720, 576))
    chunks = [(data, key) for data, key, _ in oddities.packets("dvvideo", images, "yuv420p")]
    path = oddities.write_avi(tmp_path / "a.avi", chunks, (720, 576), b"dvsd", tape=tape)
    assert [frame.time_s for frame in frames(str(path))] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert probe(str(path)).duration_s == pytest.approx(0.16)


def test_a_tape_without_time_code_is_complete(tmp_path: Path) -> None:
    chunks = oddities.packets("dvvideo", scene(4, size=(720, 576)), "yuv420p")
    path = tmp_path / "a.dv"
    path.write_bytes(b"".join(data for data, _, _ in chunks))
    info = probe(str(path))
    assert (info.frames_expected, info.damage) == (4, "")
    assert "timecode" in info.remark


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    "parts",
    [[(0, 30)], [(0, 21)], [(20, 40)], [(12, 28)], [(0, 10), (20, 30)], [(20, 30), (0, 10)], [(0, 8), (24, 32)]],
)
def test_frames_that_an_edit_list_cuts_away_are_no_loss(
    parts: list[tuple[int, int]], b_frames: int, tmp_path: Path
) -> None:
    images = [np.full((72, 96, 3), 6 * number + 8, np.uint8) for number in range(40)]
    options = {"g": "8", "bf": str(b_frames), "sc_threshold": "0", "preset": "ultrafast"}
    whole = write_clip(tmp_path / "whole.mp4", images, tick=Fraction(1, 25), options=options)
    info = probe(str(whole))
    assert info.pts is not None
    tick = int(info.pts[1] - info.pts[0])
    edits = [(40 * (stop - start), tick * (start + b_frames)) for start, stop in parts]  # B frames delay all by two
    path = oddities.with_edits(whole, tmp_path / "trimmed.mp4", edits)
    info = probe(str(path))
    expected = [number for start, stop in parts for number in range(start, stop)]
    assert (info.frames_expected, info.missing, info.missing_s, info.damage, info.restarts) == (
        len(expected), 0, 0, "", (),
    )  # fmt: skip
    assert (len(info.key_pts) > 0) == (len(parts) == 1)
    found = list(frames(str(path)))
    assert [frame.time_s for frame in found] == pytest.approx([number / 25 for number in range(len(expected))])
    levels = [frame.image.mean() for frame in found if frame.image is not None]
    assert np.abs(np.array(levels) - [images[number].mean() for number in expected]).max() < 3


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_an_edit_list_may_end_within_a_frame(rate: Fraction, b_frames: int, tmp_path: Path) -> None:
    images = [np.full((72, 96, 3), 4 * number + 8, np.uint8) for number in range(60)]
    options = {"g": "8", "bf": str(b_frames), "sc_threshold": "0", "preset": "ultrafast"}
    whole = write_clip(tmp_path / "whole.mp4", images, tick=1 / rate, options=options)
    info, rng = probe(str(whole)), np.random.default_rng(0)
    for _ in range(12):
        edges_ms = np.sort(rng.choice(int(58 / rate * 1000), 2 * int(rng.integers(1, 4)), replace=False)).tolist()
        edits = [
            (stop - start, int(start / 1000 / info.time_base))
            for start, stop in zip(edges_ms[::2], edges_ms[1::2], strict=True)
        ]
        found = probe(str(oddities.with_edits(whole, tmp_path / "trimmed.mp4", edits)))
        assert (found.missing, found.missing_s, found.damage) == (0, 0, "")


def test_joined_hevc_that_continues_with_an_open_group_loses_its_leading_frames_only(tmp_path: Path) -> None:
    parameters = "keyint=6:min-keyint=6:open-gop=1:bframes=2:b-adapt=0:scenecut=0:log-level=none:pools=none"
    whole = write_clip(
        tmp_path / "whole.ts", scene(24, size=(96, 64), face=56), codec="libx265", options={"x265-params": parameters}
    )
    part = from_key_frame(whole, tmp_path / "part.ts")
    leading, shown = probe(str(part)).leading, probe(str(part)).frames_expected
    path = tmp_path / "a.ts"
    path.write_bytes(whole.read_bytes() + part.read_bytes())
    found = list(frames(str(path)))
    assert leading > 0
    assert len(found) == 24 + leading + shown
    assert [frame.index for frame in found if frame.image is None] == list(range(24, 24 + leading))
    assert [frame.index for frame in found if frame.restart] == [24]


@pytest.mark.parametrize("duration_ms", [0, 4])
def test_an_edit_list_that_hides_all_frames_is_ignored(duration_ms: int, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", scene(14, size=(96, 64), face=56), tick=Fraction(1, 25))
    info = probe(str(oddities.with_edits(whole, tmp_path / "a.mp4", [(duration_ms, 0)])))
    assert (info.frames_expected, info.missing, info.missing_s, info.damage) == (14, 0, 0, "")
    assert info.remark == "its edit list hides all frames, and is ignored"
    assert probe(str(whole)).remark == ""
    found = list(frames(str(tmp_path / "a.mp4")))
    assert len(found) == 14
    assert all(frame.image is not None for frame in found)
    times = np.array([frame.time_s for frame in found])
    assert np.diff(times) == pytest.approx(np.full(13, 0.04))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mxf"])
def test_packets_with_decoding_times_only_are_no_disorder(suffix: str, tmp_path: Path) -> None:
    images = [np.full((72, 96, 3), 8 * number + 8, np.uint8) for number in range(24)]
    options = {"g": "12", "bf": "2", "preset": "veryfast"}
    source = write_clip(tmp_path / "source.mp4", images, tick=Fraction(1, 25), options=options)
    path = oddities.with_decoding_times(source, tmp_path / f"a.{suffix}")
    info = probe(str(path))
    assert (info.by_order, info.exact, info.frames_expected, info.missing, info.damage) == (True, False, 24, 0, "")
    found = list(frames(str(path)))
    levels = [frame.image.mean() for frame in found if frame.image is not None]
    assert np.abs(np.array(levels) - [image.mean() for image in images]).max() < 3
    times = [frame.time_s for frame in found if frame.time_s is not None]
    assert np.diff(times) == pytest.approx(np.full(23, 0.04), abs=0.002)
    (segment,) = cut_into_segments(Input(str(path), "a"), info, 0.2, 0)
    again = list(frames(str(path), segment.span))
    assert [frame.time_s for frame in again] == times


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_frames_of_one_packet_take_the_times_of_their_empty_packets(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aupipe.media.probe._REORDERED_PACKETS", 0)  # as if the first of them came later in the file
    path = tmp_path / f"packed.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_mux_stream("mpeg4", rate=25, width=96, height=72)
        for number, (data, is_key) in enumerate(oddities.packed(IMAGES)):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), is_key
            packet.pts = packet.dts = number
            container.mux(packet)
    info = probe(str(path))
    assert (info.frames_expected, info.missing, info.damage) == (12, 0, "")
    found = list(frames(str(path)))
    assert [frame.time_s for frame in found] == pytest.approx([number / 25 for number in range(12)])
    levels = [frame.image.mean() for frame in found if frame.image is not None]
    assert np.abs(np.array(levels) - [image.mean() for image in IMAGES]).max() < 5
