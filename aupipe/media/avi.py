"""AVI's clock. Its packets carry no time: a frame is shown at the tick of its number in the index."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from av.packet import Packet
from av.video.stream import VideoStream

_HEADER_BYTES = 8  # of a chunk: FFmpeg's index tells where that begins, its packets what comes after


class Clock:
    """Tells packets, in the order of the file, which frames they are. Chunks without bytes have a tick, but no frame.

    Without an index frames are counted, as FFmpeg does; it would go on counting after a hole in the file.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._promised = stream.frames
        self._ticks = {entry.pos + _HEADER_BYTES: entry.timestamp for entry in stream.index_entries if entry.size}
        self._due = deque(sorted(self._ticks.values()))
        self._next = 0

    def read(self, packet: Packet) -> tuple[list[int], int]:
        """Ticks of the frames that should have come before this packet, and the packet's own."""
        tick = self._ticks.get(-1 if packet.pos is None else packet.pos, packet.dts)
        tick = self._next if tick is None or tick < self._next else tick
        passed = []
        while self._due and self._due[0] <= tick:
            passed.append(self._due.popleft())
        self._next = tick + 1
        return [due for due in passed if due != tick], tick

    def rest(self) -> Iterator[int]:
        """Ticks of the frames that should come after the last packet, by the index or, beyond it, by the header."""
        return chain(self._due, range(self._due[-1] + 1 if self._due else self._next, self._promised))
