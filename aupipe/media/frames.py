"""The frames of a video in presentation order, upright, with media time. A damaged packet costs its frames only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from aupipe.media.container import media_time_s, open_video
from aupipe.media.probe import packets_of


@dataclass(frozen=True)
class Frame:
    """One frame to be presented.

    Attributes:
        index: 0-based, in presentation order of the whole video.
        time_s: presentation time as the container gives it (not re-based to 0); None if it gives none.
        image: (H, W, 3) uint8 RGB, upright; None if the frame could not be decoded.
        corrupt: the decoder returned it but says that part of it may be wrong.
    """

    index: int
    time_s: float | None
    image: np.ndarray | None
    corrupt: bool = False


@dataclass(frozen=True)
class Span:
    """A run of frames of one video, and how to get there.

    Attributes:
        first: index of the first frame.
        pts: (n,) int64 presentation times of the frames, ascending; None if the container gives no exact times: then
            the span is the whole video, and `expected` says how many frames it should have.
        seek_pts: a key frame's time at or before the first frame; None = decode from the start of the file.
    """

    first: int = 0
    pts: np.ndarray | None = None
    expected: int | None = None
    seek_pts: int | None = None


def frames(uri: str, span: Span | None = None) -> Iterator[Frame]:
    """Every frame of the span (default: whatever the whole file gives), in order, once; lost ones without an image.

    Raises:
        MediaError: the file cannot be opened as a video.
    """
    span = span or Span()
    with open_video(uri) as (container, stream):
        decoded = _decode_from(container, stream, span)
        if span.pts is None:
            yield from _in_output_order(decoded, span.expected)
        else:
            yield from _by_time(decoded, span.first, span.pts, stream)


def upright(frame: VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned and mirrored as the frame's display matrix says."""
    image = frame.to_ndarray(format="rgb24")
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return image
    # 3×3 of int32, native order: x' = a·x + c·y, y' = b·x + d·y (FFmpeg, libavutil/display.h)
    a, b, _, c, d = np.frombuffer(bytes(side), np.dtype("<i4" if sys.byteorder == "little" else ">i4"))[:5].tolist()
    if abs(a) < abs(b):
        image, x_sign, y_sign = image.transpose(1, 0, 2), c, b
    else:
        x_sign, y_sign = a, d
    return np.ascontiguousarray(image[:: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1])


def _by_time(decoded: Iterator[VideoFrame | None], first: int, pts: np.ndarray, stream: VideoStream) -> Iterator[Frame]:
    """Match decoded frames with the times that the container promised; what is missing is a lost frame."""
    expected = [int(t) for t in pts]
    known = frozenset(expected)
    assert stream.time_base is not None  # a stream with exact times has one
    cursor = 0
    for frame in decoded:
        if frame is None:
            continue  # which frame was lost shows in the times of the others
        time = frame.pts
        if time is None or (time > expected[0] and time not in known and time < expected[-1]):
            time = expected[cursor]  # it lost its time in a damaged packet: it takes the next free place
        if time > expected[-1]:
            break
        if time < expected[cursor]:
            continue  # before the span
        while expected[cursor] < time:
            yield Frame(first + cursor, media_time_s(expected[cursor], stream.time_base), None)
            cursor += 1
        yield Frame(first + cursor, media_time_s(time, stream.time_base), upright(frame), bool(frame.is_corrupt))
        cursor += 1
        if cursor == len(expected):
            return
    for place in range(cursor, len(expected)):
        yield Frame(first + place, media_time_s(expected[place], stream.time_base), None)


def _in_output_order(decoded: Iterator[VideoFrame | None], expected: int | None) -> Iterator[Frame]:
    """Number frames as they come. A loss stands where the decoder refused a packet; losses it hid come last."""
    index = 0
    for frame in decoded:
        if frame is None:
            yield Frame(index, None, None)
        else:
            yield Frame(index, frame.time, upright(frame), bool(frame.is_corrupt))
        index += 1
    for place in range(index, expected or 0):
        yield Frame(place, None, None)


def _decode_from(container: InputContainer, stream: VideoStream, span: Span) -> Iterator[VideoFrame | None]:
    """Decoded frames in presentation order; None for each packet that the decoder refused."""
    if span.seek_pts is not None and not _seek(container, stream, span.seek_pts):
        container.seek(0)
    for packet in packets_of(container, stream):
        yield from _decode(stream, packet)
    yield from _decode(stream, None)


def _decode(stream: VideoStream, packet: av.Packet | None) -> Iterator[VideoFrame | None]:
    try:
        yield from stream.codec_context.decode(packet)
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:  # every way in which a decoder refuses a damaged packet
        yield None


def _seek(container: InputContainer, stream: VideoStream, pts: int) -> bool:
    """Seek to the key frame at `pts`; whether the next packet is at or before it (an index can lie)."""
    container.seek(pts, stream=stream, backward=True)
    for packet in container.demux(stream):
        starts = packet.pts is not None and packet.pts <= pts and packet.is_keyframe
        container.seek(pts, stream=stream, backward=True)
        stream.codec_context.flush_buffers()
        return starts
    return False
