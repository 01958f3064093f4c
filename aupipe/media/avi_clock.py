"""The clock of AVI files. Their packets have no time: the tick of a frame is its number in the index."""

from __future__ import annotations

from collections import deque

from av.packet import Packet
from av.video.stream import VideoStream

_HEADER_BYTES = 8  # of a chunk: FFmpeg's index has the position of the chunk, its packets that of the payload


class AviClock:
    """Mapping from packets, in file order, to the ticks of their frames. Empty chunks have a tick, but no frame.

    The index of the file is authoritative, not the number of frames in its header. Without an index, frames are counted
    as FFmpeg does, whose count ignores holes in the file.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._entries = [(entry.pos, entry.timestamp) for entry in stream.index_entries if entry.size]
        self._is_tape = stream.codec_context.name == "dvvideo"
        self._ticks: dict[int, int] = {}
        self._pending: deque[int] = deque()  # ticks in the index whose packets were not read yet
        self._next = 0
        self._unit = 0

    def read(self, packet: Packet) -> tuple[list[int], int]:
        """Return the ticks of the frames that are missing before this packet, and the tick of the packet."""
        if not self._unit:
            self._begin(packet)
        tick = self._ticks.get(-1 if packet.pos is None else packet.pos, packet.dts)
        tick = self._next if tick is None or tick < self._next else tick
        passed = []
        while self._pending and self._pending[0] <= tick:
            passed.append(self._pending.popleft())
        self._next = tick + self._unit
        return [each for each in passed if each != tick], tick

    def rest(self, count: int) -> list[int]:
        """Return the ticks of `count` frames that are missing after the last packet: first those of the index."""
        listed = list(self._pending)[:count]
        after = max(self._next, listed[-1] + self._unit if listed else 0)
        return [*listed, *range(after, after + (count - len(listed)) * self._unit, self._unit)]

    @property
    def listed(self) -> int:
        """Number of frames in the index after the last packet."""
        return len(self._pending)

    def _begin(self, packet: Packet) -> None:
        """Read the index. For an interleaved DV stream (type 1), FFmpeg's ticks are finer than those of the index."""
        self._unit = max(1, packet.duration or 1) if self._is_tape else 1
        self._ticks = {pos + _HEADER_BYTES: number * self._unit for pos, number in self._entries}
        self._pending.extend(sorted(self._ticks.values()))
