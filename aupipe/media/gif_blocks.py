"""The blocks of a GIF (GIF89a): extensions, images and the trailer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

EXTENSION, IMAGE, TRAILER = b"!", b",", b";"
_HEADER_BYTES = 13


def skip_header(file: BinaryIO) -> None:
    """Skip the header of a file and its table of colors."""
    _skip_colors(file, (file.read(_HEADER_BYTES) + bytes(_HEADER_BYTES))[10])


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the first byte of each block, which is its kind, up to the trailer or to a byte that begins no block."""
    while kind := file.read(1):
        yield kind
        if kind == IMAGE:
            _skip_colors(file, (file.read(9) + bytes(9))[8])
        elif kind != EXTENSION:
            return
        file.seek(1, 1)  # the label of an extension, or the code size of an image
        while size := int.from_bytes(file.read(1), "big"):
            file.seek(size, 1)


def _skip_colors(file: BinaryIO, flags: int) -> None:
    file.seek(3 << (flags & 7) + 1 if flags & 0x80 else 0, 1)
