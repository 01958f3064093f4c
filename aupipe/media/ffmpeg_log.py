"""What FFmpeg logs while it reads a container: a demuxer that loses its way goes on further on, without an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import av.logging
from av.container import InputContainer
from av.packet import Packet

_KEPT = 100  # messages, and packets that are not whole; a hostile file could fill memory with more

# By these a demuxer says that the file ends within something that its structure announced.
_ENDS_EARLY = re.compile(r"ended prematurely|partial file|truncated|unexpected end|end of file", re.IGNORECASE)


class FFmpegLog:
    """What was logged about one container.

    Attributes:
        messages: (how many packets had been read, text), in order.
        not_whole: numbers of packets that the demuxer flags as corrupt.
    """

    def __init__(self, logs: list[tuple[int, str, str]]) -> None:
        self.messages: list[tuple[int, str]] = []
        self.not_whole: list[int] = []
        self._logs = logs

    def through(self, packets: Iterable[Packet], container: InputContainer) -> Iterator[Packet]:
        """Yield the packets and note what is logged of the container; a decoder's losses show in its frames."""
        number = 0
        for number, packet in enumerate(packets):  # used after the loop
            self._note(container, number)
            if packet.is_corrupt and len(self.not_whole) < _KEPT:
                self.not_whole.append(number)
            yield packet
        self._note(container, number + 1)

    @property
    def ends_early(self) -> str:
        """The message by which the file ends within what it announced; "" if there is none."""
        return next((text for _, text in self.messages if _ENDS_EARLY.search(text)), "")

    def mentions(self, words: str) -> bool:
        """Return whether the words are in what was logged, before `through`."""
        return any(words in text for _, _, text in self._logs)

    def refused_size(self) -> tuple[int, int]:
        """Width and height of a picture that FFmpeg finds too large, (0, 0) if there is none, before `through`."""
        sizes = [re.search(r"Picture size (\d+)x(\d+)", text) for _, _, text in self._logs]
        return max(((int(size[1]), int(size[2])) for size in sizes if size), default=(0, 0))

    def _note(self, container: InputContainer, number: int) -> None:
        texts = [text.strip() for _, source, text in self._logs if source == container.format.name]
        self._logs.clear()
        self.messages += [(number, text) for text in texts[: _KEPT - len(self.messages)]]


@contextmanager
def capture_log() -> Iterator[FFmpegLog]:
    """Collect FFmpeg's log on this thread for the length of the block."""
    before, skipping = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # otherwise a message about another file would suppress this one's
    try:
        with av.logging.Capture() as logs:
            yield FFmpegLog(logs)
    finally:
        av.logging.set_skip_repeated(skipping)
        av.logging.set_level(before)
