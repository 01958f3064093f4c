"""FFmpeg's log while it reads a container: a demuxer skips damaged parts without an error, but logs a message."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import av.logging
from av.container import InputContainer
from av.packet import Packet

_KEPT = 100  # limit on messages and on corrupt packets, because a hostile file could fill memory

# Messages of demuxers for a file that ends within an element of its structure.
_ENDS_EARLY = re.compile(r"ended prematurely|partial file|truncated|unexpected end|end of file", re.IGNORECASE)


class FFmpegLog:
    """The log messages about one container.

    Attributes:
        messages: (number of packets read before, text), in order.
        corrupt_packets: numbers of the packets that the demuxer flags as corrupt.
    """

    def __init__(self, logs: list[tuple[int, str, str]]) -> None:
        self.messages: list[tuple[int, str]] = []
        self.corrupt_packets: list[int] = []
        self._logs = logs

    def record(self, packets: Iterable[Packet], container: InputContainer) -> Iterator[Packet]:
        """Yield the packets and record the messages of the demuxer. Losses of a decoder are visible in its frames."""
        number = 0
        for number, packet in enumerate(packets):  # used after the loop
            self._take_messages(container, number)
            if packet.is_corrupt and len(self.corrupt_packets) < _KEPT:
                self.corrupt_packets.append(number)
            yield packet
        self._take_messages(container, number + 1)

    @property
    def ends_early(self) -> str:
        """The first message that reports a truncated file; "" if there is none."""
        return next((text for _, text in self.messages if _ENDS_EARLY.search(text)), "")

    def mentions(self, words: str) -> bool:
        """Return whether the words are in the log before `record`."""
        return any(words in text for _, _, text in self._logs)

    def refused_size(self) -> tuple[int, int]:
        """Return the width and height of a picture that FFmpeg rejected as too large before `record`, else (0, 0)."""
        sizes = [re.search(r"Picture size (\d+)x(\d+)", text) for _, _, text in self._logs]
        return max(((int(size[1]), int(size[2])) for size in sizes if size), default=(0, 0))

    def _take_messages(self, container: InputContainer, number: int) -> None:
        texts = [text.strip() for _, source, text in self._logs if source == container.format.name]
        self._logs.clear()
        self.messages += [(number, text) for text in texts[: _KEPT - len(self.messages)]]


class _Logging:
    """PyAV's logging, which all threads share: the first of overlapping captures turns it on, the last one restores it.

    Otherwise the capture that ends first would turn it off for the others.
    """

    def __init__(self) -> None:
        self._lock, self._captures = threading.Lock(), 0
        self._before: tuple[int | None, bool] = (None, True)  # level, and whether repeated messages are skipped

    def begin(self) -> None:
        """Begin a capture."""
        with self._lock:
            if self._captures == 0:
                self._before = av.logging.get_level(), av.logging.get_skip_repeated()
                av.logging.set_level(av.logging.ERROR)
                # Otherwise an equal message about another file would suppress this one.
                av.logging.set_skip_repeated(False)
            self._captures += 1

    def end(self) -> None:
        """End a capture."""
        with self._lock:
            self._captures -= 1
            if self._captures == 0:
                level, skipping = self._before
                av.logging.set_skip_repeated(skipping)
                av.logging.set_level(level)


_logging = _Logging()


@contextmanager
def capture_log() -> Iterator[FFmpegLog]:
    """Collect FFmpeg's log on this thread within the block."""
    _logging.begin()
    try:
        with av.logging.Capture() as logs:
            yield FFmpegLog(logs)
    finally:
        _logging.end()
