"""The frames of a video in presentation order, upright, with media time. A damaged packet costs its frames only."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from aupipe.media.avi import Clock
from aupipe.media.container import MAX_FRAME_PX, format_names, media_time_s, open_video
from aupipe.media.probe import is_presented, packets_of, probe

# How many frames may overtake a missing one before it counts as lost. In a sound stream none does.
_REORDER_FRAMES = 4


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
        expected: how many frames it has.
        exact: the container gives every frame a presentation time of its own. If not, the span is the whole video.
        first: index of the first frame.
        first_pts, last_pts: presentation times of the first and last frame, in ticks; None = no limit.
        seek_pts: a key frame's time at or before the first frame; None = decode from the start of the file.
    """

    expected: int
    exact: bool
    first: int = 0
    first_pts: int | None = None
    last_pts: int | None = None
    seek_pts: int | None = None


def frames(uri: str, span: Span | None = None, max_frame_px: int = MAX_FRAME_PX) -> Iterator[Frame]:
    """Every frame of the span (default: the whole video), in presentation order, once; lost ones without an image.

    Args:
        max_frame_px: as `open_video`.

    Raises:
        MediaError: the file cannot be opened as a video.
    """
    if span is None:
        info = probe(uri, max_frame_px)
        span = Span(info.frames_expected, info.exact)
    with open_video(uri, max_frame_px) as (container, stream):
        given = 0
        decode = _by_time if span.exact else _by_tick if "avi" in format_names(container) else _in_output_order
        for frame in decode(container, stream, span):
            yield frame
            given += 1
        for place in range(given, span.expected):
            yield Frame(span.first + place, None, None)


def upright(frame: VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned and mirrored as the frame's display matrix says."""
    image = frame.to_ndarray(format="rgb24")
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return image
    # 3×3 of int32, native order: x' = a·x + c·y, y' = b·x + d·y (FFmpeg, libavutil/display.h)
    matrix = np.frombuffer(side, np.int32)  # type: ignore[call-overload] # a buffer, though its stub does not say so
    a, b, _, c, d = matrix[:5].tolist()
    if abs(a) < abs(b):
        image, x_sign, y_sign = image.transpose(1, 0, 2), c, b
    else:
        x_sign, y_sign = a, d
    return np.ascontiguousarray(image[:: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1])


def _by_time(container: InputContainer, stream: VideoStream, span: Span) -> Iterator[Frame]:
    """Match what the decoder returns with the times of the packets that went in; what never comes out is lost."""
    low = span.first_pts if span.first_pts is not None else -(2**63)
    high = span.last_pts if span.last_pts is not None else 2**63
    promised: list[int] = []  # heap: times of packets that went in, whose frames have not been given out
    held: dict[int, VideoFrame] = {}  # frames that came before an earlier one did: damage upsets a decoder's order
    index = span.first
    assert stream.time_base is not None  # a stream with exact times has one

    def give() -> Frame:
        nonlocal index
        time = heapq.heappop(promised)
        frame = held.pop(time, None)
        image = None if frame is None else upright(frame)
        index += 1
        return Frame(
            index - 1, media_time_s(time, stream.time_base), image, frame is not None and bool(frame.is_corrupt)
        )

    finished = False
    for packet in chain(_packets(container, stream, span), [None]):
        if packet is not None and packet.pts is not None and is_presented(packet, stream) and low <= packet.pts <= high:
            heapq.heappush(promised, packet.pts)
        for frame in _decode(stream, packet):
            if frame is None:
                continue  # which one was lost shows in the times of the others
            time = frame.pts
            if time is None:  # it lost its time in a damaged packet: it takes the first free place
                time = min((t for t in promised if t not in held), default=None)
            if time in promised:
                held[time] = frame
            finished = finished or (time is not None and time > high)
            while promised and (promised[0] in held or len(held) > _REORDER_FRAMES):
                yield give()
        if finished:
            break
    while promised:
        yield give()


def _in_output_order(container: InputContainer, stream: VideoStream, span: Span) -> Iterator[Frame]:
    """Number frames as they come. A loss stands where the decoder refused a packet."""
    index = span.first
    for packet in chain(_packets(container, stream, span), [None]):
        for frame in _decode(stream, packet):
            if frame is None:
                yield Frame(index, None, None)
            else:
                pts = frame.pts  # frame.time is NaN for those that come out at the end
                time_s = None if pts is None or not stream.time_base else media_time_s(pts, stream.time_base)
                yield Frame(index, time_s, upright(frame), bool(frame.is_corrupt))
            index += 1


def _by_tick(container: InputContainer, stream: VideoStream, span: Span) -> Iterator[Frame]:
    """AVI: frames as they come, at the ticks of the packets; what its index lists and the file lacks is lost."""
    clock, index = Clock(stream), span.first
    ticks: deque[tuple[int, bool]] = deque()  # of frames that have not been given out, and whether the file has them
    assert stream.time_base is not None  # a rate stands in every AVI header

    def give(frame: VideoFrame | None, tick: int | None) -> Frame:
        nonlocal index
        index += 1
        time_s = None if tick is None else media_time_s(tick, stream.time_base)
        if frame is None:
            return Frame(index - 1, time_s, None)
        return Frame(index - 1, time_s, upright(frame), bool(frame.is_corrupt))

    for packet in chain(_packets(container, stream, span), [None]):
        if packet is not None:
            passed, tick = clock.read(packet)
            ticks += [(lost, False) for lost in passed]
            if is_presented(packet, stream):
                ticks.append((tick, True))
        for frame in _decode(stream, packet):
            while ticks and not ticks[0][1]:
                yield give(None, ticks.popleft()[0])
            yield give(frame, ticks.popleft()[0] if ticks else None)
    for tick in chain((tick for tick, _ in ticks), clock.rest()):
        if index < span.first + span.expected:
            yield give(None, tick)


def _packets(container: InputContainer, stream: VideoStream, span: Span) -> Iterator[Packet]:
    if span.seek_pts is not None and not _seek(container, stream, span.seek_pts):
        container.seek(0)
    return packets_of(container, stream)


def _decode(stream: VideoStream, packet: Packet | None) -> Iterator[VideoFrame | None]:
    """The frames that a packet (None: the end) brings out; None if the decoder refuses it."""
    try:
        yield from stream.codec_context.decode(packet)
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:  # every way in which a decoder refuses a damaged packet
        yield None


def _seek(container: InputContainer, stream: VideoStream, pts: int) -> bool:
    """Seek to the key frame at `pts`; whether the next packet is at or before it (an index can lie)."""
    try:
        container.seek(pts, stream=stream, backward=True)
        packet = next(iter(container.demux(stream)))
        starts = packet.pts is not None and packet.pts <= pts and packet.is_keyframe
        container.seek(pts, stream=stream, backward=True)
        stream.codec_context.flush_buffers()
    except (av.error.InvalidDataError, av.error.EOFError):  # damage just here: the frames are found from the start
        return False
    return starts
