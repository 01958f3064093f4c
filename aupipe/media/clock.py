"""The clock of a stream's packets: one presentation time per packet, even if the clock wraps around or restarts.

The clock restarts in streams that were joined byte by byte (`cat a.ts b.ts`, the parts of a DVD). Their frames keep the
order of the file: a moment is (number of restarts so far, ticks), and frames sort by their moments.
"""

from __future__ import annotations

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aupipe.media.avi_clock import AviClock
from aupipe.media.container import CLOCKLESS_FORMATS, PROGRAM_STREAMS, format_names

Moment = tuple[int, int]

_WRAP = 2**33  # ticks, in MPEG's program and transport streams
_WRAP_REACH = 2**24  # a clock wraps within this distance, about three minutes, of the end of its range
_TICKS_PER_S = 90_000
_RESTART_S = 1.0  # a larger decrease of the decoding time is a restart, not disorder in a damaged stream


def unwrapped_s(time_s: float, near_s: float) -> float:
    """Return a time in seconds of a program or transport stream, moved to the other side of a wrap if that is near."""
    for turn_s in (-_WRAP / _TICKS_PER_S, _WRAP / _TICKS_PER_S):
        if abs(time_s + turn_s - near_s) < _WRAP_REACH / _TICKS_PER_S:
            return time_s + turn_s
    return time_s


class PacketClock:
    """Mapping from packets, in file order, to moments.

    Attributes:
        restarts: number of restarts of the clock so far.
        owed: number of second pictures of packets so far without a moment of their own.
        leaves_out: fragments of an MP4 restart the clock, and FFmpeg hides the first frames after that.
        rewound: an edit list joins parts of a stream. The first part ends, and the next begins, with hidden frames.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        formats = format_names(container)
        self._is_fragmented = "mov" in formats and not stream.frames  # only an index gives the number of frames
        self._has_times = not formats & CLOCKLESS_FORMATS
        self._avi = AviClock(stream) if "avi" in formats else None
        self._wraps = bool(formats & PROGRAM_STREAMS)
        self._restart_ticks = _RESTART_S / float(stream.time_base or 1)
        self._last: int | None = None
        self._offset = 0
        self._hidden = False  # whether an edit list hides the previous packet
        self._free_tick = 0  # in AVI: the first tick after those of all pictures so far
        self.owed = 0
        self.restarts = 0
        self.rewound = self.leaves_out = False

    def read(self, packet: Packet) -> tuple[list[Moment], Moment | None]:
        """Return the moments of frames that the container lists but lacks before this packet, and the packet's own."""
        if not self._has_times:
            return [], None
        if self._avi is not None:
            passed, tick = self._avi.read(packet)
            return [(0, lost) for lost in passed], (0, tick)
        before = self.restarts
        if packet.dts is not None:
            self._update(packet.dts + self._offset, bool(packet.is_keyframe))
        self._hidden = bool(packet.is_discard)
        if self._is_fragmented and self._hidden and self.restarts > before:
            self.leaves_out = True
        if packet.pts is None:
            return [], None
        ticks = packet.pts + self._offset
        if self._wraps and packet.dts is not None:  # pts and dts may be on different sides of the wrap
            ahead = packet.pts - packet.dts
            ticks += _WRAP * ((ahead < -_WRAP // 2) - (ahead > _WRAP // 2))
        return [], (self.restarts, ticks)

    def of_pictures(self, moment: Moment | None, count: int) -> list[Moment | None]:
        """Return the moments of the `count` pictures of a packet.

        Of two pictures in a packet, the first has its moment, the second that of the next packet, and so on up to a
        packet that is empty. In AVI, whose moments are numbers, they are known at once.
        """
        if self._avi is not None and moment is not None:
            start = max(moment[1], self._free_tick) if count else 0
            self._free_tick = max(self._free_tick, start + count)
            return [(0, tick) for tick in range(start, start + count)]
        moments = [moment] if count or self.owed else []
        self.owed += count - len(moments)
        return moments

    @property
    def listed(self) -> int:
        """Number of frames in the container's index after the last packet."""
        return 0 if self._avi is None else self._avi.listed

    def rest(self, count: int) -> list[Moment]:
        """Return the moments of the `count` frames that are missing at the end, if the container lists them."""
        return [] if self._avi is None else [(0, tick) for tick in self._avi.rest(count)]

    def _update(self, dts: int, is_keyframe: bool) -> None:
        """Detect a wrap or a restart by a decoding time, which increases within a stream."""
        if self._last is not None and self._hidden and dts <= self._last:
            self.rewound = True
        elif self._last is not None and dts < self._last:
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
