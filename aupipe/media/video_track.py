"""Choice of a container's video track, as in a player, because the first track may be a poster picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from aupipe.errors import NoVideoStreamError

AnyPacket = TypeVar("AnyPacket", bound=Packet)

# Tracks that a player does not display by themselves: covers, thumbnails, and layers of another track.
_NOT_THE_VIDEO = (
    Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
)
_SHORT = 0.5  # tracks shorter than this fraction of the longest track have a lower rank
_COUNTED_PACKETS = 1000  # packets read of all video tracks together; a poster has one or two of them


def choose(
    streams: Sequence[VideoStream], uri: str, requested: int | None = None, counts: Mapping[int, int] | None = None
) -> int | None:
    """Return the number of the track to use; None if the headers are not sufficient and `counts` are needed.

    Tracks rank by these criteria, in this order: more than one picture; not much shorter than the longest track; the
    default flag; the size of the picture; the number of packets. Of equal tracks the first is chosen.

    Args:
        requested: the user's choice.
        counts: packets of each track, as in `packet_counts`; None: the numbers in the headers.

    Raises:
        NoVideoStreamError: there is no video track, or not the requested one.
    """
    if requested is not None:
        if requested >= len(streams):
            raise NoVideoStreamError(f"{uri}: media.track={requested}: it has {len(streams)} video tracks, from 0")
        return requested
    candidates = [n for n, stream in enumerate(streams) if not stream.disposition & _NOT_THE_VIDEO]
    candidates = candidates or [
        n for n, stream in enumerate(streams) if not stream.disposition & Disposition.attached_pic
    ]
    if not candidates:
        raise NoVideoStreamError(f"{uri}: contains no video stream")
    decodable = [n for n in candidates if streams[n].codec_context is not None] or candidates
    if len(decodable) == 1:
        return decodable[0]
    if counts is None:
        if not all(streams[n].frames for n in decodable):
            return None
        counts = {n: streams[n].frames for n in decodable}
    longest_s = max(_duration_s(streams[n]) for n in decodable)

    def rank(number: int) -> tuple[bool, bool, bool, int, int, int]:
        stream = streams[number]
        context, duration_s = stream.codec_context, _duration_s(stream)
        return (
            counts.get(number, 0) > 1,
            duration_s == 0 or duration_s >= _SHORT * longest_s,
            bool(stream.disposition & Disposition.default),
            context.width * context.height if context is not None else 0,
            counts.get(number, 0),
            -number,
        )

    return max(decodable, key=rank)


def to_the_end(packets: Iterator[AnyPacket]) -> Iterator[AnyPacket]:
    """Yield the packets of `InputContainer.demux`, also if further tracks begin within the file.

    In transport and program streams they may. PyAV 18.1 then raises IndexError after the last packet.
    """
    with suppress(IndexError):
        yield from packets


def packet_counts(container: InputContainer) -> dict[int, int]:
    """Return the number of packets of each video track, by its number, among the first packets."""
    numbers = {stream.index: number for number, stream in enumerate(container.streams.video)}
    found: Counter[int] = Counter()
    try:
        for packet in to_the_end(container.demux(*container.streams.video)):
            if packet.size:
                found[numbers[packet.stream_index]] += 1
            if found.total() >= _COUNTED_PACKETS:
                break
    except av.error.InvalidDataError:
        pass  # the packets up to the damage decide; the damage is reported when the track is read
    return dict(found)


def _duration_s(stream: VideoStream) -> float:
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
