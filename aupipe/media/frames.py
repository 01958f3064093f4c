"""The frames of a video in presentation order, as a player displays them, with media time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, groupby, islice
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from aupipe.errors import MediaError
from aupipe.media.clock import Moment, PacketClock
from aupipe.media.container import CLOCKLESS_FORMATS, MAX_FRAME_PX, format_names, media_time_s, open_video
from aupipe.media.display import Display
from aupipe.media.image_files import is_sequence, jpeg_is_whole, sequence_files
from aupipe.media.packet_survey import packets_of
from aupipe.media.pictures import mpeg2_size, picture_counter, top_layers
from aupipe.media.probe import VideoInfo, probe

# A missing frame counts as lost after this many later frames. In an undamaged stream no frame comes out of order.
_REORDER_FRAMES = 4

# More than the frames that a decoder keeps (16 in H.264 and H.265) and their spare buffers.
_BUFFERED_FRAMES = 32

# How far before a span decoding begins at most, if everything nearer is damaged. It bounds the cost of a recording that
# is damaged throughout; what a decoder conceals there may depend on where the video is split.
_MAX_LEAD_IN_S = 60.0


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        index: 0-based, in presentation order of the whole video.
        time_s: presentation time of the container, not shifted to start at 0; None if the container has none.
        image: (H, W, 3) uint8 RGB, upright, with square pixels, in SDR; None if the frame could not be decoded.
        corrupt: the decoder returned the frame but flagged it as possibly corrupt, or it is a JPEG that is cut short.
        restart: the container's clock restarts at this frame, because streams were joined.
    """

    index: int
    time_s: float | None
    image: np.ndarray | None
    corrupt: bool = False
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive frames of one video, and the seek position from which they are decoded.

    Attributes:
        expected: number of frames.
        exact: every frame has a unique presentation time in the container. If not, the span is the whole video.
        first: index of the first frame.
        first_pts, last_pts: presentation times of the first and last frame, in ticks; None: no limit.
        seek_pts: times of key frames before the first frame, the latest first. Decoding begins at the first one, and at
            the others if damage requires it; none: at the start of the file.
        track: number of the video track; None: the choice of `open_video`.
        assume_fps: frame rate (Hz) of a stream without a clock; None: its frames have no times.
        by_order: as in `VideoInfo`.
    """

    expected: int
    exact: bool
    first: int = 0
    first_pts: int | None = None
    last_pts: int | None = None
    seek_pts: tuple[int, ...] = ()
    track: int | None = None
    assume_fps: float | None = None
    by_order: bool = False

    @classmethod
    def whole(cls, info: VideoInfo, assume_fps: float | None = None) -> Span:
        """Return the span of all frames of a video."""
        first_pts = int(info.pts[0]) if info.leading and info.exact and info.pts is not None else None
        return cls(
            info.frames_expected, info.exact, first_pts=first_pts, track=info.track, assume_fps=assume_fps,
            by_order=info.by_order,
        )  # fmt: skip

    @classmethod
    def part(cls, info: VideoInfo, first: int, stop: int) -> Span:
        """Return the span of frames `first` … `stop` − 1, or of the whole video if its container cannot be cut.

        Args:
            first, stop: 0 ≤ first < stop ≤ number of frames in the container.
        """
        if info.pts is None or len(info.key_pts) == 0:
            return cls.whole(info)
        pts = (int(info.pts[first]), int(info.pts[stop - 1]))
        return cls(stop - first, True, first, *pts, seek_points(info, first), info.track)


def frame_at(uri: str, info: VideoInfo, index: int) -> np.ndarray | None:
    """Return the image of one frame, as in `Frame.image`; None if it cannot be decoded or does not exist."""
    if not 0 <= index < info.frames_expected - info.missing:
        return None
    found = frames(uri, Span.part(info, index, index + 1))
    return next((frame.image for frame in found if frame.index == index), None)


def frames_at(uri: str, info: VideoInfo, indices: Collection[int]) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yield the index and image of these frames, ascending, as in `frame_at`.

    The frames from one key frame to the next are decoded once for all of them, and so is a container that cannot be
    cut.
    """
    if len(info.key_pts):
        for group, members in groupby(sorted(indices), lambda index: _group_of(info, index)):
            chosen = list(members)
            if group is None:
                yield from ((index, None) for index in chosen)
                continue
            for frame in frames(uri, Span.part(info, chosen[0], chosen[-1] + 1)):
                if frame.index in chosen:
                    yield frame.index, frame.image
        return
    for frame in islice(frames(uri, Span.whole(info)), max(indices, default=-1) + 1):
        if frame.index in indices:
            yield frame.index, frame.image


def _group_of(info: VideoInfo, index: int) -> int | None:
    """Return the number of the last key frame until this frame; None if there is no such frame."""
    assert info.pts is not None
    if not 0 <= index < info.frames_expected - info.missing:
        return None
    return int(np.searchsorted(info.key_pts, info.pts[index], side="right"))


def frames(uri: str, span: Span | None = None, max_frame_px: int = MAX_FRAME_PX) -> Iterator[Frame]:
    """Yield every frame of the span (default: the whole video) once, in presentation order.

    Frames that cannot be decoded are yielded without an image.

    Args:
        max_frame_px: as in `open_video`.

    Raises:
        MediaError: the file cannot be opened as a video.
    """
    if span is None:
        span = Span.whole(probe(uri, max_frame_px))
    if is_sequence(uri):
        yield from _sequence_frames(uri, span, max_frame_px)
        return
    yielded = 0
    try:
        for frame in _decoded(uri, span, max_frame_px):
            yield frame
            yielded += 1
    except _NoIndexError:
        yield from islice(_decoded(uri, replace(span, seek_pts=()), max_frame_px), yielded, None)


def _decoded(uri: str, span: Span, max_frame_px: int) -> Iterator[Frame]:
    whole = span.last_pts is None and not span.seek_pts
    with open_video(uri, max_frame_px, span.track, whole) as (container, stream):
        reader = _Reader(container, stream, span, max_frame_px)
        yield from reader.by_time() if span.exact else reader.in_output_order()
        for place in range(reader.yielded, span.expected):
            yield Frame(span.first + place, None, None)


def seek_points(info: VideoInfo, first: int) -> tuple[int, ...]:
    """Return `Span.seek_pts` for a span of a video with times that begins at frame `first`.

    Decoding begins one key frame earlier than that of the first frame, because the frames after a seek can depend on
    the group before (open GOP). The next points are 2, 4, 8, … key frames earlier, up to a limit in time.
    """
    assert info.pts is not None
    nearest = int(np.searchsorted(info.key_pts, info.pts[first], side="right")) - 1
    points: list[int] = []
    back = 1
    while nearest > 0 and (not points or (info.pts[first] - points[-1]) * info.time_base < _MAX_LEAD_IN_S):
        points.append(int(info.key_pts[max(0, nearest - back)]))
        if back >= nearest:
            break
        back *= 2
    return tuple(points)


def _sequence_frames(uri: str, span: Span, max_frame_px: int) -> Iterator[Frame]:
    """Yield one frame per image of a sequence; a file that cannot be read costs only its own frame."""
    step = None if span.assume_fps is None else 1 / Fraction(span.assume_fps).limit_denominator(10**6)
    for index, file in enumerate(sequence_files(uri)):
        time_s = None if step is None else media_time_s(index, step)
        try:
            image = next(frames(file, Span(1, exact=False), max_frame_px))
        except MediaError:
            yield Frame(index, time_s, None)
        else:
            yield replace(image, index=index, time_s=time_s)


@dataclass
class _Sent:
    """A packet that was sent to the decoder, which returns its frame later.

    Attributes:
        pixel_aspect: as the codec stated it with this packet; 0 if it stated none, None before it was decoded.
    """

    moment: Moment | None
    pixel_aspect: Fraction | None = None


class _Reader:
    """Decoder of a span. Each packet passes its moment through the decoder, which identifies its frame.

    Attributes:
        yielded: number of frames yielded so far.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, span: Span, max_frame_px: int) -> None:
        self._container, self._stream, self._span = container, stream, span
        self._display = Display(container, stream, max_frame_px)
        self._step = None
        if span.assume_fps is not None and format_names(container) & CLOCKLESS_FORMATS:
            self._step = 1 / Fraction(span.assume_fps).limit_denominator(10**6)
        stream.codec_context.copy_opaque = True
        self._epoch = 0
        self._is_jpeg = "jpeg_pipe" in format_names(container)
        self._cut_short = False  # of a JPEG image
        self._sequence = 0  # the size of MPEG-2, or the number of restarts of the clock
        self.yielded = 0

    def by_time(self) -> Iterator[Frame]:
        """Yield the frames by matching the decoder's output with its input packets. Packets without output are lost.

        A decoder conceals damage with what it decoded before. If that is not enough for the same picture as in a
        decoding of the whole file, decoding begins anew at an earlier key frame.
        """
        span = self._span
        low = (0, span.first_pts) if span.first_pts is not None else (0, -(2**63))
        high = (0, span.last_pts) if span.last_pts is not None else (2**31, 0)
        for attempt, seek_pts in enumerate(span.seek_pts or (None,), 1):
            state = _DecoderState(settled=attempt >= len(span.seek_pts))
            skip = self.yielded
            for moment, frame in self._match(seek_pts, high):
                known = state.update(frame)
                if moment < low:
                    continue
                if not known:
                    break
                if skip == 0:
                    yield self._to_frame(frame, moment)
                skip = max(0, skip - 1)
            else:
                return

    def _match(self, seek_pts: int | None, high: Moment) -> Iterator[tuple[Moment, VideoFrame | None]]:
        """Yield the moment and frame (None: lost) of each picture from `seek_pts` to `high`."""
        begin = (0, -(2**63)) if seek_pts is None else (0, seek_pts)  # leading pictures of an open group are left out
        promised: list[Moment] = []  # heap of the moments of input packets whose frames were not yielded yet
        held: dict[Moment, VideoFrame] = {}  # frames decoded before an earlier one, because damage changes the order
        for packet in chain(self._packets(seek_pts), [None]):
            if packet is not None:
                _, moment = self._clock.read(packet)
                packet.opaque = _Sent(moment)
                if moment is not None and self._begins_picture(packet) and moment >= begin:
                    heapq.heappush(promised, moment)
            for frame in self._decode(packet):
                if frame is None:
                    continue  # the moments of the other frames determine which one was lost
                moment = _moment_of(frame)
                if moment is None:  # a damaged packet has no time, so its frame takes the first free moment
                    moment = min((m for m in promised if m not in held), default=None)
                if moment in promised:
                    held[moment] = frame
                while promised and (promised[0] in held or len(held) > _REORDER_FRAMES):
                    first = heapq.heappop(promised)
                    if first > high:
                        return
                    yield first, held.pop(first, None)
        while promised and promised[0] <= high:
            first = heapq.heappop(promised)
            yield first, held.pop(first, None)

    def in_output_order(self) -> Iterator[Frame]:
        """Yield the frames in the order of the decoder.

        If `Span.by_order`, each frame takes the next time of the packets, and frames that only AVI's index lists are
        lost. Otherwise a frame that the decoder rejects is lost at its place.
        """
        ticks: deque[tuple[Moment | None, bool]] = deque()  # of frames not yielded yet, and whether the file has them
        for packet in chain(self._packets(), [None]):
            if packet is not None:
                passed, moment = self._clock.read(packet)
                packet.opaque = _Sent(moment)
                ticks += [(lost, False) for lost in passed]
                count = 0 if packet.is_discard else self._counter.count(packet)
                ticks += [(each, True) for each in self._clock.of_pictures(moment, count)]
            for frame in self._decode(packet):
                if not self._span.by_order:
                    yield self._to_frame(frame, _moment_of(frame))
                    continue
                if frame is None:
                    continue  # its tick remains in `ticks` and becomes a lost frame
                while ticks and not ticks[0][1]:
                    yield self._to_frame(None, ticks.popleft()[0])
                yield self._to_frame(frame, ticks.popleft()[0] if ticks else None)
        if self._span.by_order:
            rest = self._clock.rest(max(0, self._span.expected - self.yielded - len(ticks)))
            for moment in [*(moment for moment, _ in ticks), *rest]:
                if self.yielded < self._span.expected:
                    yield self._to_frame(None, moment)

    def _to_frame(self, frame: VideoFrame | None, moment: Moment | None) -> Frame:
        index = self._span.first + self.yielded
        self.yielded += 1
        time_s = None
        if self._step is not None:
            time_s = media_time_s(index, self._step)
        elif moment is not None:
            time_s = media_time_s(moment[1], self._stream.time_base)
        restart = moment is not None and moment[0] > self._epoch
        self._epoch = moment[0] if moment is not None else self._epoch
        if frame is None:
            return Frame(index, time_s, None, restart=restart)
        corrupt = bool(frame.is_corrupt) or self._cut_short
        sent = cast("_Sent | None", frame.opaque)
        image = self._display.picture(frame, None if sent is None else sent.pixel_aspect)
        return Frame(index, time_s, image, corrupt, restart)

    def _begins_picture(self, packet: Packet) -> bool:
        return not packet.is_discard and self._counter.count(packet) > 0

    def _packets(self, seek_pts: int | None = None) -> Iterator[Packet]:
        """Return the packets from a key frame on (None: all), and begin to read their clock and pictures anew."""
        self._clock, self._counter = PacketClock(self._container, self._stream), picture_counter(self._stream)
        if seek_pts is not None and not _seek(self._container, self._stream, seek_pts):
            self._container.seek(0)
        return packets_of(self._container, self._stream)

    def _decode(self, packet: Packet | None) -> Iterator[VideoFrame | None]:
        """Yield the decoder's frames for a packet (None: the end); None if the decoder rejects the packet."""
        if packet is not None and self._begins_sequence(packet):
            yield from self._decode(None)
            self._stream.codec_context.flush_buffers()
        if packet is not None and self._is_jpeg:  # The decoder fills the rest of the picture, and flags nothing.
            self._cut_short = not jpeg_is_whole(bytes(packet))
        try:
            decoded = top_layers(self._stream, packet)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:  # a decoder rejects damaged packets with various subclasses
            yield None
            return
        if packet is not None:
            cast("_Sent", packet.opaque).pixel_aspect = self._stream.codec_context.sample_aspect_ratio or Fraction(0)
        yield from decoded

    def _begins_sequence(self, packet: Packet) -> bool:
        """Return whether the packet begins a part at which the decoder would drop frames, unless it is flushed before.

        These are MPEG-2 of another size, and HEVC after a join, if its numbers of pictures do not begin at 0.
        """
        codec = self._stream.codec_context.name
        before = self._sequence
        if codec in ("mpeg1video", "mpeg2video"):
            self._sequence = mpeg2_size(packet) or before
            return before > 0 and self._sequence != before
        self._sequence = self._clock.restarts
        return codec == "hevc" and self._sequence != before


class _DecoderState:
    """Comparison of a decoder's state with the state in a decoding of the whole file.

    An intact frame is the same wherever decoding begins, if it follows a key frame and intact frames only. A damaged
    frame is, if so many intact frames precede it that none of the decoder's buffers is older.
    """

    def __init__(self, settled: bool) -> None:
        self._settled = settled
        self._intact: int | None = None  # number of intact frames from a key frame on; None: before the first one

    def update(self, frame: VideoFrame | None) -> bool:
        """Add the next frame (None: lost), and return whether it is the same as in a decoding of the whole file."""
        if self._settled:
            return True
        if frame is None or frame.is_corrupt:
            self._settled = self._intact is not None and self._intact >= _BUFFERED_FRAMES
            self._intact = None
        elif self._intact is not None:
            self._intact += 1
        elif frame.key_frame:
            self._intact = 1
        return self._settled or self._intact is not None


def _moment_of(frame: VideoFrame | None) -> Moment | None:
    """Return the moment of the frame's packet; None for a damaged packet."""
    sent = None if frame is None else cast("_Sent | None", frame.opaque)
    return None if sent is None else sent.moment


class _NoIndexError(Exception):
    """The container has no key frames in its index, and is no longer at its start."""


def _seek(container: InputContainer, stream: VideoStream, pts: int) -> bool:
    """Seek to the key frame at `pts`, and return whether the next packet is at or before it (an index can be wrong).

    Raises:
        _NoIndexError: no seek is possible, not even to the start.
    """
    try:
        container.seek(pts, stream=stream, backward=True)
        packet = next(iter(container.demux(stream)))
        starts = packet.pts is not None and packet.pts <= pts and packet.is_keyframe
        container.seek(pts, stream=stream, backward=True)
        stream.codec_context.flush_buffers()
    except (av.error.InvalidDataError, av.error.EOFError):  # a damaged position: the caller decodes from the start
        return False
    except av.error.PermissionError as error:  # FFmpeg returns −1, the number of this error
        raise _NoIndexError from error
    return starts
