"""Still images as inputs: which files are images, and folders of images that are read as one video.

An image is a video of one frame without a clock. A URI that ends with "/" names a sequence: the images directly in that
folder, in the order of the numbers in their names, one frame a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from aupipe.errors import NoFramesError, NotAVideoError
from aupipe.hidden_files import is_hidden
from aupipe.media import tiff
from aupipe.media.byte_source import named_errors, opened
from aupipe.storage import Storage, is_http, is_uri

# FFmpeg's demuxer of a single image by how the file begins. GIF and AVIF are containers that `container` reads by
# itself; FFmpeg assembles no HEIC image of several tiles.
_SIGNATURES = (
    (rb"\xff\xd8\xff", "jpeg_pipe"),
    (rb"\x89PNG\r\n\x1a\n", "png_pipe"),
    (rb"BM", "bmp_pipe"),
    (rb"RIFF....WEBP", "webp_pipe"),
    (rb"II\*\0|MM\0\*", "tiff_pipe"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "j2k_pipe"),
    (rb"P[25]\s", "pgm_pipe"),
    (rb"P[36]\s", "ppm_pipe"),
)
IMAGE_FORMATS = frozenset(demuxer for _, demuxer in _SIGNATURES)
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".jp2", ".j2k", ".pgm", ".ppm"}
)
_WEBP_ANIMATION = 2  # flag of the VP8X chunk
_HEAD_BYTES = 2**16  # an animated PNG announces its animation before its first image data
# A marker of JPEG, except those that restart the decoder within a scan. FF 00 is no marker, but a byte of a scan.
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_WITHOUT_LENGTH = (0x01, 0xD8)  # markers that begin no segment


def has_image_suffix(uri: str) -> bool:
    """Return whether the name of a file is that of an image; of a web address, its path counts."""
    path = re.split(r"[?#]", uri)[0] if is_http(uri) else uri
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def image_format(uri: str) -> str:
    """Return FFmpeg's demuxer for an image file; "" if its name or its content is not that of an image.

    The suffix must be that of an image, because a JPEG named as a video is a mistake in an archive more often than a
    wish, and because a raw stream of JPEG frames begins as a JPEG image does.

    Raises:
        MediaError: the file cannot be read, or it has several pictures of which FFmpeg reads one or none.
    """
    if not has_image_suffix(uri):
        return ""
    with opened(uri) as file:
        head = file.read(_HEAD_BYTES)
        demuxer = signature_format(head)
        if demuxer == "tiff_pipe" and tiff.has_pages(file):
            raise NotAVideoError(f"{uri}: a TIFF of several pages, of which FFmpeg reads one; save each page as a file")
        if demuxer == "tiff_pipe" and (cause := tiff.misread(file)):
            raise NotAVideoError(f"{uri}: a TIFF with {cause}, which FFmpeg decodes wrongly; save it as PNG")
    if demuxer == "webp_pipe" and head[12:16] == b"VP8X" and head[20] & _WEBP_ANIMATION:
        raise NotAVideoError(f"{uri}: an animated WebP, which FFmpeg does not read; convert it to a video")
    return "" if demuxer == "png_pipe" and b"acTL" in head else demuxer


def signature_format(head: bytes) -> str:
    """Return FFmpeg's demuxer for an image that begins with these bytes; "" if they are not those of an image."""
    return next((demuxer for signature, demuxer in _SIGNATURES if re.match(signature, head, re.DOTALL)), "")


def jpeg_is_whole(data: bytes) -> bool:
    """Return whether a JPEG has the marker of its end after a scan. FFmpeg fills the picture after an early end.

    The contents of segments are skipped, because a thumbnail in them has an end of its own.
    """
    place, scans = 0, False
    while match := _JPEG_MARKER.search(data, place):
        place, marker = match.end(), data[match.end() - 1]
        if marker == _JPEG_END:
            return scans
        scans = scans or marker == _JPEG_SCAN
        if marker not in _WITHOUT_LENGTH:
            place += int.from_bytes(data[place : place + 2], "big")
    return False


def is_sequence(uri: str) -> bool:
    """Return whether a URI names a folder whose images are one video."""
    return uri.endswith("/")


def sequence_uri(folder: str) -> str:
    """Return the URI of the images in a folder as one video."""
    return folder.rstrip("/") + "/"


def sequence_files(uri: str) -> list[str]:
    """Return the image files of a sequence, in order.

    Raises:
        MediaError: the folder cannot be read, or no image is in it.
    """
    with named_errors(uri):
        if is_uri(uri):
            names = Storage(uri).children()[1]
        else:
            with os.scandir(uri) as entries:
                names = [entry.name for entry in entries if not entry.is_dir()]
    found = in_number_order([name for name in names if has_image_suffix(name) and not is_hidden(name)])
    if not found:
        raise NoFramesError(f"{uri}: no image in this folder")
    return [uri + name for name in found]


def in_number_order(names: Sequence[str]) -> list[str]:
    """Return names sorted such that img_9 comes before img_10."""

    def key(name: str) -> tuple[list[tuple[int, str]], str]:
        parts = re.split(r"(\d+)", name)
        return [(int(part), "") if at % 2 else (0, part) for at, part in enumerate(parts)], name

    return sorted(names, key=key)
