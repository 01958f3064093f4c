"""What a video holds, by reading its packets without decoding them (but the first picture, for its rotation)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aupipe.errors import NoFramesError
from aupipe.media.container import SEEKABLE_FORMATS, TIMED_FORMATS, format_names, open_video
from aupipe.storage import open_input

# Containers whose index or header counts the packets of a stream.
_COUNTING_FORMATS = frozenset({"mov", "avi"})


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
            `time_base`, ascending; None if the container does not give every packet a time of its own.
        key_pts: (K,) int64, those of `pts` at which decoding can start; empty if the container cannot be cut.
        frames_expected: packets to be presented (an edit list flags those that are decoded but not shown), and those
            that the container's index or header counts but that are not there.
        missing: how many of `frames_expected` are not there: the file is truncated or its structure is damaged.
        missing_s: seconds that the container promises beyond its last frame, where it says so (Matroska does not count
            frames); 0 if it does not, or if that is less than a second.
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
    pts: np.ndarray | None
    key_pts: np.ndarray
    variable_frame_rate: bool
    audio: AudioInfo | None


def probe(uri: str) -> VideoInfo:
    """Read all packets of the video at `uri` and say what it holds.

    Raises:
        MediaError: it cannot be read as a video; the subclass says why.
    """
    with open_video(uri) as (container, stream):
        packets = []
        total = 0
        for packet in packets_of(container, stream):
            total += 1
            if is_presented(packet, stream):
                packets.append((packet.pts, packet.is_keyframe))
        if not packets:
            raise NoFramesError(f"{uri}: the video stream holds no frames")
        times = [time for time, _ in packets if time is not None]
        formats = format_names(container)
        exact = len(times) == len(packets) == len(set(times)) and bool(TIMED_FORMATS & formats)
        pts = np.sort(np.array(times, np.int64)) if exact else None
        steps = np.diff(np.sort(np.array(times, np.int64)))
        cuttable = exact and bool(SEEKABLE_FORMATS & formats)
        key_pts = np.sort(np.array([t for t, key in packets if key], np.int64)) if cuttable else np.zeros(0, np.int64)
        time_base = stream.time_base or Fraction(1, 1)
        duration_s = float(np.ptp(times) + np.median(steps)) * float(time_base) if len(times) > 1 else None
        missing = max(0, stream.frames - total) if formats & _COUNTING_FORMATS else 0
        missing_s = max(0.0, _promised_s(stream) - (duration_s or 0.0))
        return VideoInfo(
            codec=stream.codec_context.name,
            container=container.format.name,
            width_px=stream.codec_context.width,
            height_px=stream.codec_context.height,
            rotation=_rotation(uri),
            time_base=time_base,
            start_s=float(min(times) * time_base) if times else None,
            duration_s=duration_s,
            frames_expected=len(packets) + missing,
            missing=missing,
            missing_s=missing_s if missing_s >= 1 else 0.0,
            pts=pts,
            key_pts=key_pts,
            variable_frame_rate=bool(len(steps)) and int(steps.max() - steps.min()) > 1,
            audio=_audio(container),
        )  # fmt: skip


def fingerprint(uri: str) -> str:
    """sha256 of the file's bytes, in hexadecimal: equal bytes are computed once."""
    digest = hashlib.sha256()
    with open_input(uri) as file:
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


def _promised_s(stream: VideoStream) -> float:
    """The length of the stream by the container, 0 if it does not say. Matroska says it in a tag of the stream."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else 0.0


def _audio(container: InputContainer) -> AudioInfo | None:
    for stream in container.streams.audio:
        context = stream.codec_context
        start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        return AudioInfo(context.name, context.sample_rate, context.channels, start)
    return None


def _rotation(uri: str) -> int:
    with open_video(uri) as (container, stream):
        for packet in packets_of(container, stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                return int(frame.rotation)
    return 0
