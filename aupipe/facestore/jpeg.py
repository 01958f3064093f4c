"""Encoding of crops as JPEG, decoding of pictures, and a fast check whether bytes are a complete JPEG."""

from __future__ import annotations

import numpy as np

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_QUALITY = 95


def encode(crop: np.ndarray) -> bytes:
    """Return the JPEG bytes (quality 95, 4:4:4) of a crop (H, W, 3) uint8 RGB."""
    import cv2

    options = [
        cv2.IMWRITE_JPEG_QUALITY, _QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip
    done, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)
    assert done  # libjpeg encodes every uint8 image
    return data.tobytes()


def decode(data: bytes) -> np.ndarray | None:
    """Return a picture of any format as (H, W, 3) uint8 RGB; None if it is damaged, or no picture."""
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except (cv2.error, MemoryError):  # no bytes, or a size that no picture has
        return None


def size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the header of a JPEG, without decoding; None if it is not a JPEG or truncated."""
    if data[:2] != b"\xff\xd8" or b"\xff\xd9" not in data[-64:]:  # some writers pad after the end marker
        return None
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker in _START_OF_FRAME:
            height, width = (int.from_bytes(data[at : at + 2], "big") for at in (place + 5, place + 7))
            return width, height
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
