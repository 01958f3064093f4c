"""Probe: the properties of a file, and one error class for each reason why it is not a video."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from aupipe.errors import DecoderMissingError, MediaError, NotAVideoError, NotFoundError, NoVideoStreamError
from aupipe.media.ffmpeg_log import capture_log
from aupipe.media.frames import frames
from aupipe.media.probe import fingerprint, probe
from harness import single_process
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit


def test_the_properties_of_a_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(30, size=(96, 72), face=64), options={"g": "10", "bf": "0"})
    info = probe(str(path))
    assert (info.codec, info.width_px, info.height_px, info.frames_expected) == ("h264", 96, 72, 30)
    assert info.key_pts.tolist() == [0, 400 * 16, 800 * 16] or len(info.key_pts) == 3
    assert info.start_s == 0
    assert info.duration_s == pytest.approx(1.2)
    assert not info.variable_frame_rate
    assert info.audio is None


def write(path: Path, codec: str, **options: str) -> bytes:
    """Write twelve frames, and return the bytes of the file. `options`: of the container."""
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for image in scene(12, size=(96, 72), face=64):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode())
    return path.read_bytes()


@pytest.mark.parametrize("length", [60, 200, 400])
def test_a_matroska_file_that_is_cut_within_its_header_is_no_error_of_the_disk(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(write(path, "mpeg4")[:length])
    with pytest.raises(NotAVideoError, match="it ends within its header"):
        probe(str(path))


def test_encrypted_frames_are_the_reason(tmp_path: Path) -> None:
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "1" * 32, "encryption_kid": "2" * 32}
    write(tmp_path / "a.mp4", "libx264", **scheme)
    with pytest.raises(DecoderMissingError, match="its frames are encrypted"):
        probe(str(tmp_path / "a.mp4"))


@pytest.mark.parametrize(("second", "frames_expected", "damage"), [
    ("libvpx", 24, ""), ("libvpx-vp9", 12, "12 packets after a restart of its clock are not vp8"),
])  # fmt: skip
def test_a_joined_part_of_another_codec_is_damage(
    second: str, frames_expected: int, damage: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.webm"
    path.write_bytes(write(path, "libvpx") + write(tmp_path / "b.webm", second))
    info = probe(str(path))
    assert (info.frames_expected, info.damage) == (frames_expected, damage)


def test_variable_rate_and_start_are_detected(tmp_path: Path) -> None:
    times = [2000, 2033, 2070, 2200, 2240]
    info = probe(str(write_clip(tmp_path / "a.mkv", scene(5, size=(96, 72), face=64), times=times)))
    assert info.variable_frame_rate
    assert info.start_s == pytest.approx(2.0)


@pytest.mark.parametrize("turn", [(0, 0, 0, 0), (0.7071, 0.7071, -0.7071, 0.7071)])
def test_a_display_matrix_that_turns_by_no_right_angle_turns_nothing(turn: tuple[float, ...], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", scene(3, size=(96, 64), face=56))
    data = bytearray(path.read_bytes())
    matrix = data.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    a, b, c, d = (round(each * 2**16) for each in turn)
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    info = probe(str(path))
    assert (info.rotation, info.width_px, info.height_px) == (0, 96, 64)
    assert [frame.image.shape for frame in frames(str(path)) if frame.image is not None] == [(64, 96, 3)] * 3


def test_audio_without_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(NoVideoStreamError, match=r"sound\.mp4"):
        probe(str(path))


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", os.urandom(4096)])
def test_a_file_that_is_not_a_video_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"x\.mp4"):
        probe(str(path))


@pytest.mark.parametrize("name", ["list.txt", "LIST.XLSX", "a.json"])
def test_a_list_with_another_suffix_is_refused_with_the_fix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a.mp4\nb.mp4\n")
    with pytest.raises(NotAVideoError, match=r"column uri .*\.csv, \.tsv, \.jsonl, \.parquet; fix: save or rename"):
        probe(str(tmp_path / name))
    (tmp_path / name).write_bytes(write_clip(tmp_path / "a.mp4", scene(2, size=(96, 72), face=64)).read_bytes())
    assert probe(str(tmp_path / name)).frames_expected == 2


def test_a_demuxer_that_does_not_permit_its_data_is_no_missing_permission(tmp_path: Path) -> None:
    path = tmp_path / "x.gxf"
    head = b"\0\0\0\0\1\xbc\0\0\0\xd4\0\0\0\0\xe1\xe2\xe0\xff\0="  # of a GXF file
    path.write_bytes(head + bytes(44))
    with pytest.raises(NotAVideoError, match="not a video file"):
        probe(str(path))


def test_a_playlist_cannot_reference_other_files(tmp_path: Path) -> None:
    target = write_clip(tmp_path / "real.mp4", scene(5, size=(96, 72), face=64))
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
    with pytest.raises(NotAVideoError):
        probe(str(playlist))
    concat = tmp_path / "concat.mp4"
    concat.write_text(f"ffconcat version 1.0\nfile {target}\n")
    with pytest.raises(NotAVideoError):
        probe(str(concat))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.mp4"):
        probe(str(tmp_path / "gone.mp4"))


def test_a_name_like_a_protocol_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", scene(5, size=(96, 72), face=64)).rename(tmp_path / "concat:a 'ü😀.mp4")
    assert probe("concat:a 'ü😀.mp4").frames_expected == 5


def test_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc" * 10_000_000)
    assert fingerprint(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_title_in_another_encoding_is_accepted(name: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, scene(5, size=(96, 72), face=64))
    assert b"Lavf" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xb2avf"))
    assert probe(str(path)).frames_expected == 5


def test_an_order_that_is_impossible_for_the_codec_is_damage(tmp_path: Path) -> None:
    reordered = {"preset": "ultrafast", "g": "6", "bf": "2"}
    path = write_clip(tmp_path / "a.mp4", scene(9, size=(96, 72), face=64), options=reordered)
    assert not probe(str(path)).damage
    path.write_bytes(path.read_bytes().replace(b"avc1", b"WRLE"))  # a codec that does not reorder frames
    assert "in an order that is impossible for msrle" in probe(str(path)).damage


@pytest.mark.parametrize("length", [188, 192, 204])
def test_bytes_around_a_transport_stream_are_no_loss(length: int, tmp_path: Path) -> None:
    images = [np.full((72, 96, 3), 8 * number + 8, np.uint8) for number in range(12)]
    plain = write_clip(tmp_path / "plain.ts", images, options={"bf": "0"}).read_bytes()
    padding = bytes(length - 188)
    packets = [plain[place : place + 188] for place in range(0, len(plain), 188)]
    stream = b"".join(padding + packet if length == 192 else packet + padding for packet in packets)
    path = tmp_path / "a.ts"
    for before, after in ((b"", b""), (b"\r\n", b""), (packets[0][88:], b""), (b"", bytes(5000)), (b"", b"<html>")):
        path.write_bytes(before + stream + after)
        info = probe(str(path))
        assert (info.frames_expected, info.damage) == (12, "")
    for cut in (1, 100, 187):
        path.write_bytes(b"\r\n" + stream[: len(stream) - length + (4 if length == 192 else 0) + cut])
        assert probe(str(path)).damage


def test_a_gif_without_its_trailer_is_damaged(tmp_path: Path) -> None:
    images = scene(6, size=(96, 72), face=64)
    path = write_clip(tmp_path / "a.gif", images, codec="gif", tick=Fraction(1, 100), pix_fmt="rgb8")
    whole = path.read_bytes()
    second = whole.index(b"!\xf9", whole.index(b"!\xf9") + 1)
    for data in (whole, whole + b";", whole + b"text"):
        path.write_bytes(data)
        assert (probe(str(path)).frames_expected, probe(str(path)).damage) == (6, "")
    kept = (len(whole) // 2, second, second + 1, second + 9, second + 20, len(whole) - 2, len(whole) - 1)
    for data in (*(whole[:size] for size in kept), whole[:second] + b"\0" + whole[second:]):
        path.write_bytes(data)
        assert "do not end with a trailer" in probe(str(path)).damage


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_a_program_stream_that_ends_within_a_packet_is_damaged(codec: str, tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (6, 72, 96, 3), np.uint8))
    for suffix in ("mpg", "vob"):  # with packs of MPEG-1 and of MPEG-2
        path = write_clip(tmp_path / f"a.{suffix}", images, codec=codec, tick=Fraction(1, 25))
        whole = path.read_bytes()
        for after in (b"", b"\0\0\1\xb9", bytes(5000), b"text"):
            path.write_bytes(whole + after)
            assert (probe(str(path)).frames_expected, probe(str(path)).damage) == (6, "")
        for missing in (1, 1000, 3000, len(whole) // 2 + 7):
            path.write_bytes(whole[:-missing])
            assert probe(str(path)).damage


@pytest.mark.parametrize(("suffix", "codec"), [("flv", "flv"), ("wmv", "wmv2"), ("ogv", "libvpx")])
def test_a_file_that_ends_within_an_element_is_damaged(suffix: str, codec: str, tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (24, 36, 48, 3), np.uint8))
    quick = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
    muxer = {"flvflags": "no_metadata"}
    path = write_clip(tmp_path / f"a.{suffix}", images, codec=codec, muxer=muxer, options=quick)
    whole = path.read_bytes()
    for after in (b"", b"text", bytes(5000)):
        path.write_bytes(whole + after)
        assert (probe(str(path)).frames_expected, probe(str(path)).damage) == (24, "")
    for missing in (100, 3000, len(whole) // 3):
        path.write_bytes(whole[:-missing])
        assert probe(str(path)).damage


@pytest.mark.parametrize("harm", ["hole", "end"])
def test_a_corrupt_frame_makes_a_program_stream_partial(harm: str, tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 64, (90, 72, 96, 3), np.uint8))
    path = write_clip(tmp_path / "a.mpg", images, codec="mpeg2video", tick=Fraction(1, 25), options={"bf": "2"})
    record, _ = single_process.annotate(path, tmp_path / "out")
    assert (record["status"], record["reason"]) == ("ok", "")
    data = path.read_bytes()
    middle = len(data) // 4096 * 2048  # at the end of a packet
    path.write_bytes(data[:middle] + (np.random.default_rng(0).bytes(2048) + data[middle + 2048 :]) * (harm == "hole"))
    record, rows = single_process.annotate(path, tmp_path / "out")
    assert len(rows) < len(images)
    assert (record["status"], record["frames_lost"], probe(str(path)).damage) == ("partial", 0, "")
    assert re.search(r"^frames_corrupt: .*; container_damaged: .*\(a frame is corrupt, and", record["reason"])


@pytest.mark.parametrize("suffix", ["mpg", "ts", "mkv"])
def test_a_gap_alone_is_no_damage(suffix: str, tmp_path: Path) -> None:
    times = [0, 40, 80, 120, 520, 560, 600, 640]
    images = list(np.random.default_rng(0).integers(0, 256, (8, 72, 96, 3), np.uint8))  # none shares a packet
    path = write_clip(tmp_path / f"a.{suffix}", images, times=times)
    record, _ = single_process.annotate(path, tmp_path / "out")
    assert (record["status"], record["reason"], record["variable_frame_rate"]) == ("ok", "", True)


def test_a_path_through_a_link_and_back_is_read_where_it_leads(tmp_path: Path) -> None:
    for folder, count in (("near", 2), ("far", 3)):
        write_clip(tmp_path / folder / "a.mp4", scene(count))
    (tmp_path / "far/to").mkdir()
    (tmp_path / "near/link").symlink_to(tmp_path / "far/to")
    assert probe(f"{tmp_path}/near/link/../a.mp4").frames_expected == 3


def test_the_log_of_a_file_is_whole_while_another_thread_ends_its_own() -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    other = capture_log()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(other.__enter__).result()
        with capture_log() as log:
            thread.submit(other.__exit__, None, None, None).result()
            for _ in range(2):
                av.logging.log(av.logging.ERROR, "mov", "ended prematurely")
            assert log.mentions("ended prematurely")
            assert len(log._logs) == 2
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before
