"""AVI's clock. Its packets carry no time: a frame is shown at the tick of its number in the index."""

from __future__ import annotations

from collections import deque

from av.packet import Packet
from av.video.stream import VideoStream

_HEADER_BYTES = 8  # of a chunk: FFmpeg's index holds where that begins, its packets what comes after


class AviClock:
    """Maps packets, in the order of the file, to frames. Chunks without bytes have a tick, but no frame.

    What counts is the file's own index, not the number of frames in its header. Without an index frames are counted, as
    FFmpeg does; it would go on counting after a hole in the file.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._entries = [(entry.pos, entry.timestamp) for entry in stream.index_entries if entry.size]
        self._is_tape = stream.codec_context.name == "dvvideo"
        self._ticks: dict[int, int] = {}
        self._due: deque[int] = deque()
        self._next = 0
        self._unit = 0

    def read(self, packet: Packet) -> tuple[list[int], int]:
        """Return the ticks of the frames that should have come before this packet, and the packet's own."""
        if not self._unit:
            self._begin(packet)
        tick = self._ticks.get(-1 if packet.pos is None else packet.pos, packet.dts)
        tick = self._next if tick is None or tick < self._next else tick
        passed = []
        while self._due and self._due[0] <= tick:
            passed.append(self._due.popleft())
        self._next = tick + self._unit
        return [due for due in passed if due != tick], tick

    def rest(self, count: int) -> list[int]:
        """Return the ticks of `count` frames that should come after the last packet: by the index, then one by one."""
        listed = list(self._due)[:count]
        after = max(self._next, listed[-1] + self._unit if listed else 0)
        return [*listed, *range(after, after + (count - len(listed)) * self._unit, self._unit)]

    @property
    def listed(self) -> int:
        """How many frames the index lists after the last packet."""
        return len(self._due)

    def _begin(self, packet: Packet) -> None:
        """Read the index. Where a tape's stream is interleaved (type 1), FFmpeg counts finer ticks than the index."""
        self._unit = max(1, packet.duration or 1) if self._is_tape else 1
        self._ticks = {pos + _HEADER_BYTES: number * self._unit for pos, number in self._entries}
        self._due.extend(sorted(self._ticks.values()))
