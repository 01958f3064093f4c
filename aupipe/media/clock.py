"""The clock of a stream's packets: one presentation time each, also where the clock wraps around or starts anew.

Streams that were joined byte by byte (`cat a.ts b.ts`, the parts of a DVD) begin their clocks again. Their frames stay
in the order of the file: a moment is (how often the clock has started anew, ticks), and moments sort as frames do.
"""

from __future__ import annotations

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aupipe.media.avi_clock import AviClock
from aupipe.media.container import CLOCKLESS_FORMATS, PROGRAM_STREAMS, format_names

Moment = tuple[int, int]

_WRAP = 2**33  # ticks, in MPEG's program and transport streams
_WRAP_REACH = 2**24  # how near to the end of its range, about three minutes, a clock is that wraps
_RESTART_S = 1.0  # a decoding time that falls by this much is no disorder of a damaged stream


class PacketClock:
    """Reads packets in the order of the file.

    Attributes:
        restarts: how often the clock has started anew so far.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        formats = format_names(container)
        self._known = not formats & CLOCKLESS_FORMATS
        self._avi = AviClock(stream) if "avi" in formats else None
        self._wraps = bool(formats & PROGRAM_STREAMS)
        self._restart_ticks = _RESTART_S / float(stream.time_base or 1)
        self._last: int | None = None
        self._offset = 0
        self.restarts = 0

    def read(self, packet: Packet) -> tuple[list[Moment], Moment | None]:
        """Return the moments of frames that the container lists before this packet but lacks, and its own moment."""
        if not self._known:
            return [], None
        if self._avi is not None:
            passed, tick = self._avi.read(packet)
            return [(0, lost) for lost in passed], (0, tick)
        if packet.dts is not None:
            self._follow(packet.dts + self._offset, bool(packet.is_keyframe))
        if packet.pts is None:
            return [], None
        ticks = packet.pts + self._offset
        if self._wraps and packet.dts is not None:  # near the wrap, pictures are shown on its other side
            ahead = packet.pts - packet.dts
            ticks += _WRAP * ((ahead < -_WRAP // 2) - (ahead > _WRAP // 2))
        return [], (self.restarts, ticks)

    @property
    def listed(self) -> int:
        """How many frames the container's index lists after the last packet."""
        return 0 if self._avi is None else self._avi.listed

    def rest(self, count: int) -> list[Moment]:
        """Return the moments of the `count` frames that are missing at the end, as far as the container has them."""
        return [] if self._avi is None else [(0, tick) for tick in self._avi.rest(count)]

    def _follow(self, dts: int, is_keyframe: bool) -> None:
        """Take note of a decoding time, which rises within a stream."""
        if self._last is not None and dts < self._last:
            if self._wraps and abs(dts + _WRAP - self._last) < _WRAP_REACH:
                self._offset += _WRAP
                dts += _WRAP
            elif is_keyframe or self._last - dts > self._restart_ticks:
                self.restarts += 1
                dts -= self._offset
                self._offset = 0
            else:
                return
        self._last = dts
