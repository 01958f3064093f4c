"""Unusual clips that FFmpeg's own muxers and encoders do not write: composed byte by byte, or joined."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np

_TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])


def packets(
    codec: str, images: Sequence[np.ndarray], pix_fmt: str, options: dict[str, str] | None = None
) -> list[tuple[bytes, bool, int]]:
    """Encode images at 25 frames per second to packets (bytes, is key frame, pts)."""
    context = cast(av.VideoCodecContext, av.CodecContext.create(codec, "w"))
    context.height, context.width = images[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = pix_fmt, Fraction(1, 25), Fraction(25)
    context.options = options or {}
    found = []
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
        frame.pts = number
        found += context.encode(frame)
    found += context.encode(None)
    return [(bytes(packet), packet.is_keyframe, cast(int, packet.pts)) for packet in found]


def write_avi(
    path: Path, chunks: Sequence[tuple[bytes, bool]], size: tuple[int, int], fourcc: bytes, *,
    counted: int | None = None, tape: bool = False, index: bool = True,
) -> Path:  # fmt: skip
    """Write an AVI of 25 chunks per second.

    Args:
        chunks: (bytes, is key frame) of each chunk.
        size: width and height in pixels.
        counted: number of frames in the header; default: the number of chunks.
        tape: write an interleaved DV stream (type 1).
        index: write an index of the chunks.
    """
    width, height = size
    count = len(chunks) if counted is None else counted
    kind, name = (b"iavs", b"00__") if tape else (b"vids", b"00dc")

    def chunk(label: bytes, data: bytes) -> bytes:
        return label + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    main = struct.pack("<14I", 40000, 0, 0, 0x10, count, 0, 1, 1 << 16, width, height, 0, 0, 0, 0)
    rate = (0, 0, 0, 0, 1, 25, 0, count, 1 << 16, 0xFFFFFFFF, 0, 0, 0, width, height)
    head = kind + fourcc + struct.pack("<IHHIIIIIIII4H", *rate)
    form = bytes(32) if tape else struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, fourcc, 0, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", head) + chunk(b"strf", form))
    movie, entries = b"movi", b""
    for data, is_key in chunks:
        entries += name + struct.pack("<III", 0x10 * is_key, len(movie), len(data))
        movie += chunk(name, data)
    body = b"AVI " + chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams) + chunk(b"LIST", movie)
    path.write_bytes(chunk(b"RIFF", body + (chunk(b"idx1", entries) if index else b"")))
    return path


def packed(images: Sequence[np.ndarray], b_frames: int = 1) -> list[tuple[bytes, bool]]:
    """Encode MPEG-4 as DivX and Xvid pack it into AVI.

    A P and a B frame are in one chunk. Each further B frame is in the next one. Then comes a chunk without a coded
    frame.

    Args:
        b_frames: number of B frames between two others.
    """
    first, *rest = packets("mpeg4", images, "yuv420p", {"g": "10", "bf": str(b_frames), "qscale": "3"})
    at = first[0].index(b"\0\0\1\xb6")
    chunks = [(first[0][:at] + b"\0\0\1\xb2DivX503b1393p\0" + first[0][at:], True)]
    while rest:
        data, is_key, pts = rest.pop(0)
        between = []
        while rest and rest[0][2] < pts:
            between.append((rest.pop(0)[0], False))
        if between:
            chunks += [(data + between[0][0], is_key), *between[1:], (NOT_CODED, False)]
        else:
            chunks.append((data, is_key))
    return chunks


# A video object plane of MPEG-4 at 25 per second with vop_coded = 0, which repeats the previous frame.
NOT_CODED = b"\0\0\1\xb6" + int("01" + "0" + "1" + "00000" + "1" + "0" + "01111", 2).to_bytes(2, "big")


def field_pairs(images: Sequence[np.ndarray], group: int = 12) -> list[tuple[bytes, bytes]]:
    """Encode images as pairs (top, bottom) of H.264 field pictures (PAFF, I_PCM macroblocks).

    The width of the images must be a multiple of 16, and the height a multiple of 32.
    """
    height, width = images[0].shape[:2]
    sequence = "01001101" + "00000000" + "00101000" + _ue(0) * 3 + _ue(4) + _ue(1) + "0"
    sequence += _ue(width // 16 - 1) + _ue(height // 32 - 1) + "0" + "0" + "1" + "0"  # frame_mbs_only_flag = 0
    sequence += "1" + "1000" + f"{1:032b}" + f"{50:032b}" + "1" + "0000"  # 50 fields per second
    picture = _ue(0) * 2 + "00" + _ue(0) * 3 + "000" + _ue(0) * 3 + "000"
    headers = _nal(0x67, _padded(sequence)) + _nal(0x68, _padded(picture))
    pairs = []
    for number, image in enumerate(images):
        planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
        luma = (16 + planes[:height] * (219 / 255)).astype(np.uint8)
        chroma = planes[height:].reshape(2, height // 2, width // 2).astype(float)
        blue, red = (128 + (chroma - 128) * (224 / 255)).astype(np.uint8)
        delimiter = b"\0\0\0\1\x09\x10" + (headers if number % group == 0 else b"")
        top = delimiter + _field(number, 0, luma[0::2], blue[0::2], red[0::2])
        pairs.append((top, b"\0\0\0\1\x09\x10" + _field(number, 1, luma[1::2], blue[1::2], red[1::2])))
    return pairs


def mpeg2_fields(images: Sequence[np.ndarray]) -> list[bytes]:
    """Return two field pictures of MPEG-2 for each image.

    FFmpeg has no encoder for them. So each field is encoded as a frame without prediction, whose headers are changed.
    """
    fields = [np.ascontiguousarray(image[parity::2]) for image in images for parity in (0, 1)]
    coded = packets("mpeg2video", fields, "yuv420p", {"g": "1", "qmin": "2", "qmax": "4"})
    found = []
    for number, (data, _, _) in enumerate(coded):
        units = [_field_unit(unit, number % 2, len(images[0])) for unit in data.split(b"\0\0\1")[1:]]
        found.append(b"".join(b"\0\0\1" + unit for unit in units if unit))
    return found


def _field_unit(unit: bytes, parity: int, height: int) -> bytes:
    """Return a unit of a frame as that of a field; nothing for a header of the sequence before the second field."""
    extension = unit[1] >> 4 if unit[0] == 0xB5 else 0  # 1: of the sequence, 8: of the picture
    if parity and (unit[0] in (0xB3, 0xB8) or extension == 1):
        return b""
    changes: list[tuple[int, int, int]] = []  # place after the first byte, number of bits, value
    if unit[0] == 0xB3:
        changes = [(12, 12, height)]
    elif unit[0] == 0:
        changes = [(0, 10, 0)]  # temporal_reference
    elif extension == 1:
        changes = [(12, 1, 0)]  # progressive_sequence
    elif extension == 8:  # picture_structure, and then top_field_first … progressive_frame
        changes = [(22, 2, 1 + parity), *((place, 1, 0) for place in (24, 25, 31, 32))]
    bits = int.from_bytes(unit, "big")
    for place, count, value in changes:
        shift = 8 * len(unit) - 8 - place - count
        bits = bits & ~(((1 << count) - 1) << shift) | value << shift
    return bits.to_bytes(len(unit), "big")


def mux(
    path: Path,
    units: Sequence[tuple[bytes, int | None, bool]],
    size: tuple[int, int],
    tick: Fraction,
    codec: str = "h264",
) -> Path:
    """Write packets (bytes, pts or None, is key frame) unchanged to a container that the suffix selects."""
    names = {".mts": "mpegts", ".ts": "mpegts", ".mkv": "matroska"}
    with av.open(str(path), "w", format=names.get(path.suffix)) as container:
        stream = container.add_mux_stream(codec, rate=25, width=size[0], height=size[1])
        stream.time_base = tick
        for data, pts, is_key in units:
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.pts, packet.dts, packet.is_keyframe = stream, tick, pts, pts, is_key
            container.mux(packet)
    return path


def with_edits(video: Path, path: Path, edits: Sequence[tuple[int, int]]) -> Path:
    """Copy an MP4 whose index comes last, with another edit list, as editors write it to trim a clip without encoding.

    Args:
        edits: duration in milliseconds and first media time in ticks of the track, for each part.
    """
    data = video.read_bytes()
    start = data.rindex(b"moov") - 4
    movie = data[start:]
    at = movie.index(b"trak") - 4
    track = _without_box(movie[at : at + _size(movie, at)], b"edts")
    head = 8 + _size(track, 8)  # the track's header comes first
    entries = b"".join(struct.pack(">IiI", *edit, 0x10000) for edit in edits)
    box = _box(b"edts", _box(b"elst", struct.pack(">II", 0, len(edits)) + entries))
    track = _box(b"trak", track[8:head] + box + track[head:])
    path.write_bytes(data[:start] + _box(b"moov", movie[8:at] + track + movie[at + _size(movie, at) :]))
    return path


def with_decoding_times(video: Path, path: Path) -> Path:
    """Copy a clip with B frames such that the packets' presentation times are their decoding times."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.dts += 1024  # a negative time would become an edit list
                packet.pts, packet.stream = packet.dts, stream
                target.mux(packet)
    return path


def with_poster(video: Path, path: Path, *, pictures: int = 1, last: bool = False) -> Path:
    """Copy a clip and add a track of a few JPEG pictures that no flag marks as attached."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        original = source.streams.video[0]
        width, height = original.codec_context.width, original.codec_context.height
        image = np.full((height, width, 3), 90, np.uint8)
        jpeg = packets("mjpeg", [image], "yuvj420p", {"strict": "unofficial"})[0][0]
        copy = target.add_stream_from_template(original) if last else None
        poster = target.add_mux_stream("mjpeg", rate=25, width=width, height=height)
        copy = copy or target.add_stream_from_template(original)
        poster.time_base = Fraction(1, 90000)
        for number in range(pictures):
            picture: Any = av.Packet(jpeg)
            picture.stream, picture.time_base, picture.is_keyframe = poster, Fraction(1, 90000), True
            picture.pts = picture.dts = number * 90
            picture.duration = 90
            target.mux(picture)
        for packet in source.demux(original):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    return path


def hdr_frames(images: Sequence[np.ndarray], transfer: str) -> list[av.VideoFrame]:
    """Convert SDR images to HDR with BT.2020 primaries, 10 bit, white at 203 nits (BT.2408). transfer: pq | hlg."""
    curve = {"pq": _pq, "hlg": _hlg}[transfer]
    return [_ten_bit(curve(203 * ((image / 255.0) ** 2.4) @ _TO_2020.T)) for image in images]


def write_hdr(path: Path, images: Sequence[np.ndarray], transfer: str) -> Path:
    """Write `hdr_frames` as HEVC with color metadata."""
    name, number = {"pq": ("smpte2084", 16), "hlg": ("arib-std-b67", 18)}[transfer]
    parameters = "log-level=none:pools=none:frame-threads=1"
    with av.open(str(path), "w") as container:
        colors = f"{parameters}:colorprim=bt2020:transfer={name}:colormatrix=bt2020nc"
        options = {"crf": "12", "preset": "veryfast", "x265-params": colors}
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, number, 1
        for index, frame in enumerate(hdr_frames(images, transfer)):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _pq(nits: np.ndarray) -> np.ndarray:
    """Return the inverse PQ curve (SMPTE ST 2084)."""
    y = np.clip(nits / 10000, 0, 1) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def _hlg(nits: np.ndarray) -> np.ndarray:
    """Return the HLG signal (ARIB STD-B67) of light from a display with a peak of 1000 nits."""
    display = np.clip(nits / 1000, 0, 1)
    scene = display * np.maximum((display @ _LUMA_2020)[..., None], 1e-9) ** (-0.2 / 1.2)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def _ten_bit(rgb: np.ndarray) -> av.VideoFrame:
    """Return a 10-bit 4:2:0 frame of limited range from RGB in 0 … 1."""
    height, width = rgb.shape[:2]
    luma = rgb @ _LUMA_2020
    halves = [
        color.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        for color in ((rgb[..., 2] - luma) / 1.8814, (rgb[..., 0] - luma) / 1.4746)
    ]
    planes = np.concatenate([(64 + 876 * luma).ravel(), *((512 + 896 * half).ravel() for half in halves)])
    return av.VideoFrame.from_ndarray(planes.round().clip(4, 1019).astype(np.uint16).reshape(-1, width), "yuv420p10le")


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _size(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _without_box(data: bytes, kind: bytes) -> bytes:
    at = data.find(kind) - 4
    return data if at < 0 else data[:at] + data[at + _size(data, at) :]


def _ue(value: int) -> str:
    """Return the bits of an unsigned exponential-Golomb code."""
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def _padded(bits: str, last: str = "1") -> bytes:
    """Return bits as bytes, padded with zeros after the stop bit `last`."""
    bits += last
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _nal(kind: int, payload: bytes) -> bytes:
    """Return a NAL unit with emulation prevention bytes, so that its payload contains no start code."""
    guarded, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            guarded.append(3)
            zeros = 0
        guarded.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([kind]) + bytes(guarded)


def _field(number: int, bottom: int, luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> bytes:
    first = number == 0 and not bottom
    bits = _ue(0) + _ue(7) + _ue(0) + f"{number % 16:04b}" + "1" + str(bottom) + (_ue(0) if first else "")
    bits += f"{(2 * number + bottom) % 256:08b}" + ("00" if first else "0") + _ue(0) + _ue(25)  # mb_type I_PCM
    data = bytearray(_padded(bits, last=""))
    height, width = luma.shape
    for y in range(0, height, 16):
        for x in range(0, width, 16):
            data += b"\x0d\x00" if x or y else b""  # ue(25), aligned
            data += luma[y : y + 16, x : x + 16].tobytes()
            for plane in (blue, red):
                data += plane[y // 2 : y // 2 + 8, x // 2 : x // 2 + 8].tobytes()
    return _nal(0x65 if first else 0x21, bytes(data) + b"\x80")
