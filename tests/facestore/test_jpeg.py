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
