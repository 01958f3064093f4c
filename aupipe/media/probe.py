"""What a video holds, by reading its packets without decoding them (but the first picture, for its rotation)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aupipe.errors import NoFramesError
from aupipe.media.avi import Clock
from aupipe.media.complaints import complaints
from aupipe.media.container import MAX_FRAME_PX, SEEKABLE_FORMATS, TIMED_FORMATS, format_names, open_video
from aupipe.media.source import opened

_TS_PACKET_BYTES = (188, 192, 204)
# A header that promises more than this many times the frames that are there is not that of a truncated file.
_MOST_MISSING = 1000


@dataclass(frozen=True)
class AudioInfo:
    """The first audio stream."""

    codec: str
    rate_hz: int
    channels: int
    start_s: float


@dataclass(frozen=True)
class VideoInfo:
    """The first video stream of one input.

    Attributes:
        pts: (frames_expected − missing,) int64, presentation times of the packets to be presented, in ticks of
            `time_base`, ascending; of AVI, with those of missing frames that its index lists; None if the container
            does not give every packet a time.
        exact: a frame is known by its time: no two have the same, and the container gives it to packets.
        key_pts: (K,) int64, those of `pts` at which decoding can start; empty if the container cannot be cut.
        frames_expected: packets to be presented (an edit list flags those that are decoded but not shown), and those
            that the container's index or header counts but that are not there.
        missing: how many of `frames_expected` are not there: the file is truncated or its structure is damaged.
        missing_s: seconds that the container promises beyond its last frame, where it says so (Matroska does not count
            frames); 0 if it does not.
        damage: what FFmpeg says of damage to the container, which may have lost frames without a trace; "" if nothing.
        rotation: degrees counter-clockwise by which the stored picture is turned to stand upright.
        variable_frame_rate: the distances between presentation times differ by more than one tick.
    """

    codec: str
    container: str
    width_px: int
    height_px: int
    rotation: int
    time_base: Fraction
    start_s: float | None
    duration_s: float | None
    frames_expected: int
    missing: int
    missing_s: float
    damage: str
    pts: np.ndarray | None
    exact: bool
    key_pts: np.ndarray
    variable_frame_rate: bool
    audio: AudioInfo | None


def probe(uri: str, max_frame_px: int = MAX_FRAME_PX) -> VideoInfo:
    """Read all packets of the video at `uri` and say what it holds.

    Args:
        max_frame_px: as `open_video`.

    Raises:
        MediaError: it cannot be read as a video; the subclass says why.
    """
    rotation = _rotation(uri, max_frame_px)
    with complaints() as said, open_video(uri, max_frame_px) as (container, stream):
        formats, time_base = format_names(container), stream.time_base or Fraction(1, 1)
        clock = Clock(stream) if "avi" in formats else None
        packets: list[tuple[int | None, bool]] = []
        absent: list[int] = []  # ticks of frames that AVI's index lists
        total = end = 0
        for packet in said.through(packets_of(container, stream), container):
            total += 1
            time = packet.pts
            if clock is not None:
                passed, time = clock.read(packet)
                absent += passed
            if is_presented(packet, stream):
                packets.append((time, packet.is_keyframe))
                end = max(end, (time or 0) + (packet.duration or 0))
        if not packets:
            raise NoFramesError(f"{uri}: the video stream holds no frames")
        missing = max(0, stream.frames - total) if "mov" in formats else 0
        if clock is not None:
            absent += islice(clock.rest(), _MOST_MISSING * total + 1)
            missing = len(absent)
        damage = said.first
        if "mpegts" in formats and all(container.size % size for size in _TS_PACKET_BYTES):
            damage = damage or "it ends within a packet"
        promised = True
        if missing > _MOST_MISSING * total:
            damage = damage or f"its header promises {stream.frames:,} frames, which cannot be meant"
            missing, absent, promised = 0, [], False
        times = [time for time, _ in packets if time is not None]
        if times != sorted(times) and not stream.codec_context.codec.reorder:
            damage = damage or f"frames in an order that {stream.codec_context.codec.name} cannot have"
        known = np.sort(np.array([*times, *absent], np.int64))
        complete = len(times) == len(packets) and bool(TIMED_FORMATS & formats or clock)
        exact = complete and clock is None and len(times) == len(set(times))
        steps = np.diff(known)
        cuttable = exact and bool(SEEKABLE_FORMATS & formats)
        key_pts = np.sort(np.array([t for t, key in packets if key], np.int64)) if cuttable else np.zeros(0, np.int64)
        return VideoInfo(
            codec=stream.codec_context.name,
            container=container.format.name,
            width_px=stream.codec_context.width,
            height_px=stream.codec_context.height,
            rotation=rotation,
            time_base=time_base,
            start_s=float(known[0] * time_base) if times else None,
            duration_s=float(known[-1] - known[0] + np.median(steps)) * float(time_base) if len(times) > 1 else None,
            frames_expected=len(packets) + missing,
            missing=missing,
            missing_s=0.0 if missing or not times or not promised else _missing_s(stream, known, end),
            damage=damage,
            pts=known if exact or (complete and clock) else None,
            exact=exact,
            key_pts=key_pts,
            variable_frame_rate=bool(len(steps)) and int(steps.max() - steps.min()) > 1,
            audio=_audio(container),
        )  # fmt: skip


def fingerprint(uri: str) -> str:
    """sha256 of the file's bytes, in hexadecimal: equal bytes are computed once."""
    digest = hashlib.sha256()
    with opened(uri) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The stream's packets that hold data, in decoding order, over damage in the container where FFmpeg can go on."""
    failures = 0
    while failures < 100:  # a demuxer that fails at the same place for ever must end
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
                    failures = 0
        except av.error.InvalidDataError:
            failures += 1
            continue
        return


def is_presented(packet: Packet, stream: VideoStream) -> bool:
    """Whether a packet brings a frame to be shown."""
    if packet.is_discard:
        return False
    # VP8's alternate reference frames are packets of their own; the show_frame bit says so (RFC 6386, 9.1).
    return stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _missing_s(stream: VideoStream, pts: np.ndarray, end: int) -> float:
    """Seconds by which the stream ends before its promised end; the last frame may last as long as any before it.

    A promise is a length to some writers, the time of the end to others.
    """
    steps = np.diff(pts)
    end = max(end, int(pts[-1] + steps.max(initial=0)))
    tick_s = float(stream.time_base or 1)
    missing_s = _promised_s(stream) - max(end, end - int(pts[0])) * tick_s
    return missing_s if missing_s > (0.5 * float(np.median(steps)) * tick_s if len(steps) else 1.0) else 0.0


def _promised_s(stream: VideoStream) -> float:
    """The length of the stream by the container, 0 if it does not say. Matroska says it in a tag of the stream."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else 0.0


def _audio(container: InputContainer) -> AudioInfo | None:
    for stream in container.streams.audio:
        context = stream.codec_context
        if context is None:  # FFmpeg has no decoder for it, though its stub does not say so
            continue
        start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        return AudioInfo(context.name, context.sample_rate, context.channels, start)
    return None


def _rotation(uri: str, max_frame_px: int) -> int:
    with open_video(uri, max_frame_px) as (container, stream):
        for packet in packets_of(container, stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # `frames` says which frames are lost
                continue
            for frame in frames:
                return int(frame.rotation)
    return 0
