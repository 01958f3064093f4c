"""The number of pictures in a packet, which is one for most codecs but not for all.

A packet may contain one field of a frame (interlaced H.264 and MPEG-2), two frames (MPEG-4 packed by DivX), a frame
that is never displayed (VP8's alternate references) or none (MPEG-4's "not coded" frames, which repeat the previous
one, and comments of GIF). Only headers are read, and nothing is decoded. A packet with a damaged header counts as one
picture, as in its decoder.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Protocol

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from aupipe.media import gif_blocks

# Profiles whose sequence parameter set has fields for chroma and scaling (H.264, 7.3.2.1.1).
_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_START = b"\0\0\1"
_HEADER_BYTES = 512  # limit on the bytes of a parameter set or slice that are read for its header
_SLICES = (1, 2, 5)
_EXIF_OF_JPEG = b"Exif\0\0"


class PictureCounter(Protocol):
    """A counter of the pictures in packets, which are read in decoding order."""

    def count(self, packet: Packet) -> int:
        """Return the number of pictures that begin in the packet, without those that are never displayed."""


def picture_counter(stream: VideoStream) -> PictureCounter:
    """Return the counter for the stream's codec."""
    context = stream.codec_context
    makers: dict[str, type[_OneEach | _Gif | _H264 | _Mpeg2 | _Mpeg4 | _Vp8]] = {
        "gif": _Gif, "h264": _H264, "mpeg2video": _Mpeg2, "mpeg4": _Mpeg4, "vp8": _Vp8
    }  # fmt: skip
    return makers.get(context.name, _OneEach)(bytes(context.extradata or b""))


def top_layers(stream: VideoStream, packet: Packet | None) -> list[VideoFrame]:
    """Return the frames that the decoder returns for a packet (None: the end).

    A packet of VP9 from a video conference contains a picture in several sizes. Players show the last and largest one.
    """
    codec = stream.codec_context.name
    decoded = stream.codec_context.decode(_readable_webp(packet) if packet is not None and codec == "webp" else packet)
    return decoded[-1:] if packet is not None and codec == "vp9" else decoded


def _readable_webp(packet: Packet) -> Packet:
    """Return a WebP image whose EXIF data FFmpeg reads, also if they begin as in a JPEG, as Pillow writes them."""
    data, place = bytes(packet), 12
    while (kind := data[place : place + 4]) and not (kind == b"EXIF" and data[place + 8 :].startswith(_EXIF_OF_JPEG)):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    if not kind:
        return packet
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    body, rest = data[place + 8 + len(_EXIF_OF_JPEG) : place + 8 + size], data[place + 8 + size + size % 2 :]
    chunks = data[8:place] + kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2) + rest
    readable = Packet(data[:4] + len(chunks).to_bytes(4, "little") + chunks)
    readable.opaque = packet.opaque
    return readable


class _OneEach:
    def __init__(self, extradata: bytes) -> None:
        pass

    def count(self, packet: Packet) -> int:
        return 1


class _Gif:
    """Counter without the packet of comments after the last picture (GIF89a, 24)."""

    def __init__(self, extradata: bytes) -> None:
        pass

    def count(self, packet: Packet) -> int:
        data = bytes(packet)
        file = io.BytesIO(data)
        if data.startswith(b"GIF"):
            gif_blocks.skip_header(file)
        kind = next((kind for kind in gif_blocks.blocks(file) if kind != gif_blocks.EXTENSION), b"")
        return int(kind not in (b"", gif_blocks.TRAILER))


class _Vp8:
    """Counter without alternate reference frames, whose packets have the show_frame bit unset (RFC 6386, 9.1)."""

    def __init__(self, extradata: bytes) -> None:
        pass

    def count(self, packet: Packet) -> int:
        return int(bool(memoryview(packet)[0] & 0x10))


class _H264:
    """Counter that pairs fields: a frame's second field (opposite parity, equal frame_num) is not a new picture."""

    def __init__(self, extradata: bytes) -> None:
        self._length_bytes = 0  # of the size before each NAL unit; 0: units are separated by start codes
        self._sequence_of: dict[int, int] = {}  # picture parameter set → sequence parameter set
        # Sequence parameter set → bits of frame_num, whether color planes are separate, whether fields are possible.
        self._sequences: dict[int, tuple[int, bool, bool]] = {}
        self._first_field: tuple[int, int] | None = None  # frame_num and parity of a field without its second field
        if extradata[:1] == b"\x01" and len(extradata) > 6:
            self._length_bytes = (extradata[4] & 3) + 1
            for unit in _avcc_parameter_sets(extradata):
                self._read_parameters(unit)
        else:
            for unit in _between_start_codes(extradata):
                self._read_parameters(unit)

    def count(self, packet: Packet) -> int:
        data = bytes(packet)
        pictures, found = 0, False
        for unit in _after_lengths(data, self._length_bytes) if self._length_bytes else _between_start_codes(data):
            kind = unit[0] & 31
            if kind in (7, 8):
                self._read_parameters(unit)
            elif kind in _SLICES:
                found = True
                if not any(fields for _, _, fields in self._sequences.values()):
                    return 1  # in a progressive stream the first slice is enough
                pictures += self._begins(unit)
        return pictures if found else 1

    def _begins(self, unit: bytes) -> int:
        """Return 1 if the slice is the first of a new picture, else 0."""
        try:
            bits = _Bits(_without_emulation(unit[1:_HEADER_BYTES]))
            first_macroblock = bits.exp_golomb()
            bits.exp_golomb()  # slice_type
            frame_num_bits, planes, may_be_field = self._sequences[self._sequence_of[bits.exp_golomb()]]
            bits.read(2 if planes else 0)
            frame_num = bits.read(frame_num_bits)
            is_field = may_be_field and bits.read(1)
            parity = bits.read(1) if is_field else 0
        except (KeyError, IndexError):
            self._first_field = None
            return 1
        if first_macroblock:
            return 0
        if not is_field:
            self._first_field = None
            return 1
        if self._first_field == (frame_num, 1 - parity):
            self._first_field = None
            return 0
        self._first_field = (frame_num, parity)
        return 1

    def _read_parameters(self, unit: bytes) -> None:
        try:
            bits = _Bits(_without_emulation(unit[1:_HEADER_BYTES]))
            if unit[0] & 31 == 8:
                self._sequence_of[bits.exp_golomb()] = bits.exp_golomb()
            elif unit[0] & 31 == 7:
                number, sequence = _sequence_parameters(bits)
                self._sequences[number] = sequence
        except IndexError:
            return  # after a damaged parameter set the previous ones remain in use, as in decoders


class _Mpeg2:
    """Counter that pairs fields: one of the opposite parity to the field before is not a new picture (ISO 13818-2).

    FFmpeg's parser joins both, but some containers have packets of their own for each.
    """

    def __init__(self, extradata: bytes) -> None:
        self._first_field = 0  # structure of a field without its second field: 1 top, 2 bottom; 0: none

    def count(self, packet: Packet) -> int:
        begun = second = False
        for unit in _between_start_codes(bytes(packet)):
            if unit[0] == 0xB5 and len(unit) > 3 and unit[1] >> 4 == 8:  # the extension of a picture's header
                structure = unit[3] & 3
                if self._first_field and structure == 3 - self._first_field:
                    self._first_field, second = 0, True
                    continue
                self._first_field = structure % 3
                begun = True
            elif 1 <= unit[0] <= 0xAF and not self._first_field:
                break  # after the first slice of a whole frame there is no other picture
        return int(begun or not second)


def mpeg2_size(packet: Packet) -> int:
    """Return the width and height of the header of a sequence in a packet, as 24 bits; 0 if there is none."""
    data = bytes(packet)
    place = data.find(_START + b"\xb3")
    return int.from_bytes(data[place + 4 : place + 7], "big") if place >= 0 else 0


class _Mpeg4:
    """Counter of coded video object planes (ISO 14496-2, 6.2.3 and 6.2.5)."""

    def __init__(self, extradata: bytes) -> None:
        self._time_bits = 0
        self._read(extradata)

    def count(self, packet: Packet) -> int:
        planes = self._read(bytes(packet))
        return 1 if planes is None else planes

    def _read(self, data: bytes) -> int | None:
        """Return the number of coded planes; None if there is no plane, or no layer header came before it."""
        coded, found = 0, False
        for unit in _between_start_codes(data):
            try:
                bits = _Bits(unit[1:_HEADER_BYTES])
                if 0x20 <= unit[0] <= 0x2F:
                    self._time_bits = _layer_time_bits(bits)
                elif unit[0] == 0xB6 and self._time_bits:
                    found = True
                    bits.read(2)  # vop_coding_type
                    while bits.read(1):
                        pass  # modulo_time_base
                    bits.read(1 + self._time_bits + 1)
                    coded += bits.read(1)
            except IndexError:
                coded += 1
        return coded if found else None


class _Bits:
    """Reader of bits, most significant first. It raises IndexError past the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("past the end of the data")
        return (self._value >> self._left) & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def _sequence_parameters(bits: _Bits) -> tuple[int, tuple[int, bool, bool]]:
    """Return the set's number, and (bits of frame_num, color planes are separate, pictures may be fields)."""
    profile = bits.read(8)
    bits.read(16)
    number, planes = bits.exp_golomb(), False
    if profile in _HIGH_PROFILES:
        chroma = bits.exp_golomb()
        planes = chroma == 3 and bool(bits.read(1))
        bits.exp_golomb(), bits.exp_golomb(), bits.read(1)
        if bits.read(1):
            for place in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    _skip_scaling_list(bits, 16 if place < 6 else 64)
    frame_num_bits = bits.exp_golomb() + 4
    order = bits.exp_golomb()
    if order == 0:
        bits.exp_golomb()
    elif order == 1:
        bits.read(1), bits.exp_golomb(), bits.exp_golomb()
        for _ in range(bits.exp_golomb()):
            bits.exp_golomb()
    bits.exp_golomb(), bits.read(1), bits.exp_golomb(), bits.exp_golomb()
    return number, (frame_num_bits, planes, not bits.read(1))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.exp_golomb()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


def _layer_time_bits(bits: _Bits) -> int:
    """Return the bits of vop_time_increment from the header of a video object layer."""
    bits.read(9)
    version = 1
    if bits.read(1):
        version = bits.read(4)
        bits.read(3)
    if bits.read(4) == 15:
        bits.read(16)
    if bits.read(1):
        bits.read(3)
        if bits.read(1):
            bits.read(79)
    if bits.read(2) == 3 and version != 1:
        bits.read(4)
    bits.read(1)
    return max(1, (bits.read(16) - 1).bit_length())


def _between_start_codes(data: bytes) -> Iterator[bytes]:
    """Yield the unit after each start code, at most its first `_HEADER_BYTES`."""
    place = data.find(_START)
    while place >= 0:
        begin = place + len(_START)
        place = data.find(_START, begin)
        if begin < len(data):
            yield data[begin : min(begin + _HEADER_BYTES, len(data) if place < 0 else place)]


def _after_lengths(data: bytes, length_bytes: int) -> Iterator[bytes]:
    place = 0
    while place + length_bytes < len(data):
        size = int.from_bytes(data[place : place + length_bytes], "big")
        place += length_bytes
        if size:
            yield data[place : place + min(size, _HEADER_BYTES)]
        place += size


def _avcc_parameter_sets(extradata: bytes) -> Iterator[bytes]:
    """Yield the parameter sets of an AVCDecoderConfigurationRecord (ISO 14496-15, 5.3.3.1)."""
    place = 5
    for mask in (31, 255):
        if place >= len(extradata):
            return
        count, place = extradata[place] & mask, place + 1
        for _ in range(count):
            size = int.from_bytes(extradata[place : place + 2], "big")
            if size and place + 2 < len(extradata):
                yield extradata[place + 2 : place + 2 + size]
            place += 2 + size


def _without_emulation(data: bytes) -> bytes:
    """Remove the emulation prevention bytes, which keep start codes out of the payload."""
    return data.replace(b"\0\0\3", b"\0\0")
