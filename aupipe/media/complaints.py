"""What FFmpeg says of damage in a container: a demuxer that loses its way goes on further on, without an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import av.logging
from av.container import InputContainer
from av.packet import Packet


class Complaints:
    """Attributes:
    first: what was said first; "" if nothing was.
    """

    def __init__(self, logs: list[tuple[int, str, str]]) -> None:
        self.first = ""
        self._logs = logs

    def through(self, packets: Iterable[Packet], container: InputContainer) -> Iterator[Packet]:
        """The packets; what was said of them is noted, but not by decoders: their losses show in the frames."""
        for packet in packets:
            self._hear(container)
            if packet.is_corrupt and not self.first:
                self.first = "a packet is not whole"
            yield packet
        self._hear(container)

    def refused_size(self) -> tuple[int, int]:
        """Width and height of a picture that FFmpeg finds too large, (0, 0) if there is none, before `through`."""
        sizes = [re.search(r"Picture size (\d+)x(\d+)", text) for _, _, text in self._logs]
        return max(((int(size[1]), int(size[2])) for size in sizes if size), default=(0, 0))

    def _hear(self, container: InputContainer) -> None:
        said = [text.strip() for _, speaker, text in self._logs if speaker == container.format.name]
        self._logs.clear()  # a hostile file could fill memory with them
        if said and not self.first:
            self.first = said[0]


@contextmanager
def complaints() -> Iterator[Complaints]:
    """Listen to FFmpeg on this thread for the length of the block."""
    before, skipping = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # or what was said of another file would not be said of this one
    try:
        with av.logging.Capture() as logs:
            yield Complaints(logs)
    finally:
        av.logging.set_skip_repeated(skipping)
        av.logging.set_level(before)
