"""Which video track of a container is the video, as a player would choose: the first one may be a poster picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from aupipe.errors import NoVideoStreamError

# What a player does not show by itself: covers, thumbnails, and layers that only add to another track.
_NOT_THE_VIDEO = (
    Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
)
_SHORT = 0.5  # a track of less than this part of the longest one's duration is no alternative to it
_COUNTED_PACKETS = 1000  # of all video tracks; a poster has one or two among them


def choose(
    streams: Sequence[VideoStream], uri: str, wanted: int | None = None, counts: Mapping[int, int] | None = None
) -> int | None:
    """Return the number of the track to show; None if the headers do not tell and `counts` are needed.

    Of several: one with more than a single picture, that is not much shorter than the longest, that is marked as
    default, with the largest picture, and then with the most packets; of equals the first.

    Args:
        wanted: the user's choice.
        counts: packets of each track, as `packet_counts`; None: as many as the headers say.

    Raises:
        NoVideoStreamError: there is no video track, or not the one that is wanted.
    """
    if wanted is not None:
        if wanted >= len(streams):
            raise NoVideoStreamError(f"{uri}: media.track={wanted}: it has {len(streams)} video tracks, from 0")
        return wanted
    shown = [n for n, stream in enumerate(streams) if not stream.disposition & _NOT_THE_VIDEO]
    shown = shown or [n for n, stream in enumerate(streams) if not stream.disposition & Disposition.attached_pic]
    if not shown:
        raise NoVideoStreamError(f"{uri}: holds no video stream")
    decodable = [n for n in shown if streams[n].codec_context is not None] or shown
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


def packet_counts(container: InputContainer) -> dict[int, int]:
    """Count the packets of each video track, by its number, among the first of them."""
    numbers = {stream.index: number for number, stream in enumerate(container.streams.video)}
    found: Counter[int] = Counter()
    try:
        for packet in container.demux(*container.streams.video):
            if packet.size:
                found[numbers[packet.stream_index]] += 1
            if found.total() >= _COUNTED_PACKETS:
                break
    except av.error.InvalidDataError:
        pass  # what is readable up to here decides; the damage shows when the track is read
    return dict(found)


def _duration_s(stream: VideoStream) -> float:
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
