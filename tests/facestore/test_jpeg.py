import struct
import zlib

import cv2
import numpy as np
import pytest

from aupipe.facestore.jpeg import decode, encode, size

pytestmark = pytest.mark.unit

CROP = np.random.default_rng(0).integers(0, 256, (112, 96, 3), dtype=np.uint8)


def test_an_encoded_crop_has_no_color_subsampling():
    data = encode(CROP)
    assert size(data) == (96, 112)
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(back.astype(int) - CROP).mean() < 6  # noise in color: 4:2:0 would lose most of it


def test_progressive_and_gray_files_have_a_size():
    progressive = cv2.imencode(".jpg", CROP, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert size(progressive) == size(cv2.imencode(".jpg", CROP[..., 0])[1].tobytes()) == (96, 112)


def test_an_incomplete_jpeg_has_no_size():
    data = encode(CROP)
    png = cv2.imencode(".png", CROP)[1].tobytes()
    for bad in (b"", b"\xff\xd8", data[: len(data) // 2], png, b"\xff\xd8" + b"\x00" * 50 + b"\xff\xd9"):
        assert size(bad) is None
    assert size(data + b"\0" * 20) == (96, 112)


def test_segments_before_the_size_are_skipped():
    data = encode(CROP)
    thumbnail = b"\xff\xe1" + (2 + 8).to_bytes(2, "big") + b"\xff\xc0\0\x0b\x08\0\1\0"  # with a size of its own
    table = data.index(b"\xff\xc4")
    tables = data[table : table + 2 + int.from_bytes(data[table + 2 : table + 4], "big")]
    for more in (thumbnail, tables, b"\xff", thumbnail + b"\xff\xff" + tables):
        assert size(data[:2] + more + data[2:]) == (96, 112)


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture():
    data = encode(CROP)
    with_thumbnail = data[:2] + b"\xff\xe1\0\x06ab\xff\xd9" + data[2:]
    assert size(with_thumbnail) == (96, 112)
    assert size(with_thumbnail[:-100]) is None


def damaged(data):
    """Return a JPEG of the same size without its scan."""
    return data[:170] + bytes(len(data) - 172) + data[-2:]


def png_header(width, height):
    """Return a PNG that states a size, with hardly any pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9)))]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_damaged_pictures_and_impossible_sizes_are_not_decoded():
    data = encode(CROP)
    assert decode(data).shape == CROP.shape
    assert size(damaged(data)) == size(data)
    for bad in (damaged(data), png_header(100_000, 100_000), png_header(112, 112), b"", b"text"):
        assert decode(bad) is None
