"""What a video holds, by reading its packets without decoding them (but the first picture, for its rotation)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aupipe.errors import NoFramesError
from aupipe.media.container import SEEKABLE_FORMATS, format_names, open_video
from aupipe.storage import open_input


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
        pts: (frames_expected,) int64, presentation times of the packets to be presented, in ticks of `time_base`,
            ascending; None if the container does not give every packet a time of its own.
        key_pts: (K,) int64, those of `pts` at which decoding can start; empty if the container cannot be cut.
        frames_expected: packets not flagged discard (an edit list flags those that are decoded but not shown).
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
        packets = [(p.pts, p.is_keyframe) for p in packets_of(container, stream) if not p.is_discard]
        if not packets:
            raise NoFramesError(f"{uri}: the video stream holds no frames")
        times = [time for time, _ in packets if time is not None]
        exact = len(times) == len(packets) == len(set(times))
        pts = np.sort(np.array(times, np.int64)) if exact else None
        steps = np.diff(np.sort(np.array(times, np.int64)))
        cuttable = exact and bool(SEEKABLE_FORMATS & format_names(container))
        key_pts = np.sort(np.array([t for t, key in packets if key], np.int64)) if cuttable else np.zeros(0, np.int64)
        time_base = stream.time_base or Fraction(1, 1)
        return VideoInfo(
            codec=stream.codec_context.name,
            container=container.format.name,
            width_px=stream.codec_context.width,
            height_px=stream.codec_context.height,
            rotation=_rotation(uri),
            time_base=time_base,
            start_s=float(min(times) * time_base) if times else None,
            duration_s=float(np.ptp(times) + np.median(steps)) * float(time_base) if len(times) > 1 else None,
            frames_expected=len(packets),
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
