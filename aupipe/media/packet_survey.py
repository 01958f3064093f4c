"""The packets of a video stream, read once: the moments of its pictures, and the evidence of what is missing."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aupipe.media.clock import Moment, PacketClock
from aupipe.media.container import format_names
from aupipe.media.image_files import IMAGE_FORMATS
from aupipe.media.pictures import picture_counter
from aupipe.media.video_track import to_the_end

# Packets on each side of a join that a demuxer may flag as corrupt, because the streams' counters do not match.
_JOIN_PACKETS = 3


class PacketSurvey:
    """All packets of a stream, in decoding order.

    Attributes:
        clock: with the state after the last packet.
        pictures: the moment of each displayed picture, and whether its packet is a key frame.
        absent: the moments of missing frames that AVI's index lists.
        total: number of packets.
        encrypted: number of packets that are encrypted.
        joined: numbers of the packets on each side of a restart of the clock.
        has_pairs: a packet contains more than one picture.
        first_byte, last_byte: places of the first and of the last packet in the file; −1: unknown.
        stop_byte: place of the end of that packet which ends last.
        end: the moment at which the last picture ends.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.clock, self._counter = PacketClock(container, stream), picture_counter(stream)
        self.pictures: list[tuple[Moment | None, bool]] = []
        self.absent: list[Moment] = []
        self.total = self.encrypted = 0
        self.joined: set[int] = set()
        self.has_pairs = False
        self.first_byte = self.last_byte = -1
        self.stop_byte = 0
        self.end: Moment = (0, 0)
        self._at_restart = (0, 0)  # packets and pictures before the last restart of the clock

    def add(self, packet: Packet) -> None:
        """Add the next packet."""
        restarts = self.clock.restarts
        passed, moment = self.clock.read(packet)
        self.absent += passed
        if self.clock.restarts > restarts:
            self.joined |= set(range(self.total - _JOIN_PACKETS, self.total + _JOIN_PACKETS))
            self._at_restart = self.total, len(self.pictures)
        self.encrypted += packet.has_sidedata("encryption_info")
        if packet.pos is not None and packet.pos >= 0:
            self.first_byte = packet.pos if self.first_byte < 0 else self.first_byte
            self.last_byte = packet.pos
            self.stop_byte = max(self.stop_byte, packet.pos + packet.size)
        self.total += 1
        count = 0 if packet.is_discard else self._counter.count(packet)
        self.pictures += [(each, packet.is_keyframe) for each in self.clock.of_pictures(moment, count)]
        self.has_pairs = self.has_pairs or count > 1
        if moment is not None and not packet.is_discard:
            self.end = max(self.end, (moment[0], moment[1] + (packet.duration or 0)))

    def finish(self) -> None:
        """Add the pictures that have no moment of their own, because no packet follows."""
        self.pictures += [(None, False)] * self.clock.owed

    def fault(self, codec: str) -> str:
        """Return evidence in the packets that the decoder cannot return some of the frames; "" if there is none."""
        if self.clock.leaves_out:
            return "frames after a restart of its clock are left out"
        if self.encrypted:
            return f"{self.encrypted:,} of {self.total:,} packets are encrypted"
        packets, pictures = self._at_restart
        if self.clock.restarts and len(self.pictures) == pictures:
            return f"{self.total - packets:,} packets after a restart of its clock are not {codec}"
        return ""


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Yield the stream's packets with data, in decoding order. Damaged parts are skipped if FFmpeg can continue."""
    failures = 0
    single = bool(format_names(container) & IMAGE_FORMATS)
    while failures < 100:  # the limit ends a demuxer that always fails at the same position
        try:
            for packet in to_the_end(container.demux(stream)):
                if packet.size:
                    yield packet
                    failures = 0
                    if single:  # cameras append a second image, or a film, to a JPEG file
                        return
        except av.error.InvalidDataError:
            failures += 1
            continue
        return
