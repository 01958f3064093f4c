"""Conversion of decoded frames to images as a player displays them: RGB, SDR colors, square pixels, upright."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from aupipe.media.container import CLOCKLESS_FORMATS, MAX_FRAME_PX, PROGRAM_STREAMS, format_names
from aupipe.media.image_files import IMAGE_FORMATS

_ICC_PROFILE, _EXIF = 15, 31  # AVFrameSideDataType of FFmpeg 8
_PNG = {"png", "apng"}  # codecs
# A field of HEVC is a picture of its own, with half of the lines. The pixel aspect in its header is that of the whole
# frame if it is at least this; a smaller one, which is unusual for frames, is that of the field.
_FIELD = Fraction(3, 4)
_WIDEST = 16  # a larger pixel aspect ratio comes from a damaged header

# Transfer functions of HDR: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67).
_HDR = {int(ColorTrc.SMPTE2084): "pq", int(ColorTrc.ARIB_STD_B67): "hlg"}


class Display:
    """Converter of one stream's frames to images.

    HDR is tone-mapped by FFmpeg's swscale (perceptual intent). Pixels that are not square are stretched along their
    longer side, as in browsers, so that no detail is lost.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, max_frame_px: int = MAX_FRAME_PX) -> None:
        self._stream, self._max_frame_px = stream, max_frame_px
        self._square = bool(format_names(container) & IMAGE_FORMATS)  # an image's density is that of its print
        # The codec's header has the pixel aspect in these formats. It may change within a stream (4:3 and 16:9 on TV).
        self._by_codec = bool(format_names(container) & (PROGRAM_STREAMS | CLOCKLESS_FORMATS))
        self._is_png = stream.codec_context.name in _PNG
        self._reformatter = VideoReformatter()

    def picture(self, frame: VideoFrame, stated: Fraction | None = None) -> np.ndarray:
        """Return the image (H, W, 3) uint8 RGB of a frame.

        Args:
            stated: the pixel aspect that the codec stated with its packet; None: that of the latest packet.
        """
        width, height = self.size(frame, stated)
        hdr = hdr_of(frame)
        if not hdr and (width, height) == (frame.width, frame.height):
            # Without `threads` each frame would start as many threads as the machine has CPUs.
            converted = self._reformatter.reformat(frame, width, height, "rgb24", threads=1)
            return self._upright(frame, converted.to_ndarray())
        converted = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC,
            dst_color_trc=ColorTrc.IEC61966_2_1 if hdr else None,
            dst_color_primaries=ColorPrimaries.BT709 if hdr else None, threads=1,
        )  # fmt: skip
        return self._upright(frame, converted.to_ndarray())

    def _upright(self, frame: VideoFrame, image: np.ndarray) -> np.ndarray:
        """Rotate and mirror an image by the frame's display matrix."""
        side = _display_matrix(_readable(frame) if self._is_png else frame)
        if side is None:
            return image
        # 3×3 of int32, native order: x' = a·x + c·y, y' = b·x + d·y (FFmpeg, libavutil/display.h)
        matrix = np.frombuffer(side, np.int32)
        a, b, _, c, d = matrix[:5].tolist()
        if abs(a) < abs(b):
            image, x_sign, y_sign = image.transpose(1, 0, 2), c, b
        else:
            x_sign, y_sign = a, d
        return np.ascontiguousarray(image[:: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1])

    def size(self, frame: VideoFrame, stated: Fraction | None = None) -> tuple[int, int]:
        """Return the width and height of the frame with square pixels, before rotation."""
        ratio = self.pixel_aspect(frame, stated)
        width = round(frame.width * max(ratio, Fraction(1)))
        height = round(frame.height / min(ratio, Fraction(1)))
        return (width, height) if width * height <= self._max_frame_px else (frame.width, frame.height)

    def pixel_aspect(self, frame: VideoFrame, stated: Fraction | None = None) -> Fraction:
        """Return the width of a pixel divided by its height; of square pixels if it is missing or impossible."""
        if self._square:
            return Fraction(1)
        context = self._stream.codec_context
        by_codec = context.sample_aspect_ratio if stated is None else stated
        ratio = by_codec if self._by_codec else self._stream.sample_aspect_ratio
        if not ratio or not Fraction(1, _WIDEST) <= ratio <= _WIDEST:
            ratio = Fraction(1)
        is_field = context.name == "hevc" and frame.interlaced_frame
        return ratio / 2 if is_field and ratio >= _FIELD else ratio


def hdr_of(frame: VideoFrame) -> str:
    """Return "pq", "hlg" or, for SDR, ""."""
    return _HDR.get(int(frame.color_trc), "")


def _display_matrix(frame: VideoFrame) -> Any:
    """Return the frame's display matrix as a buffer; None if it has none. FFmpeg makes it from EXIF's orientation too.

    PyAV 18.1 raises ValueError on any look at the side data of a frame with EXIF data, a type that it has no name for.
    """
    try:
        return frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        return _readable(frame).side_data.get("DISPLAYMATRIX")


def _readable(frame: VideoFrame) -> VideoFrame:
    """Return the frame without the side data that PyAV 18.1 cannot read: EXIF data, and the ICC profile of PNG.

    PyAV frees the metadata of all side data that it looks at, which FFmpeg frees again: the process crashes. Of all
    decoders, only that of PNG gives side data metadata: the name of the profile.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    removers = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in (_ICC_PROFILE, _EXIF)]
    graph.link_nodes(source, *removers, graph.add("buffersink")).configure()
    graph.push(frame)
    readable = graph.pull()
    assert isinstance(readable, VideoFrame)
    return readable
