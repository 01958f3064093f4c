"""What an input's header promises, without reading its packets: for limits and for the plan of a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import av

from aupipe.annotation.inputs import Input
from aupipe.annotation.settings import AnnotateConfig, LimitsConfig
from aupipe.errors import MediaError, TooLargeError
from aupipe.media.container import MAX_FRAME_PX, format_names, open_video
from aupipe.media.ffmpeg_log import capture_log
from aupipe.media.image_files import IMAGE_FORMATS, is_sequence, sequence_files

_LOOKED_INTO = 100  # inputs of a dry run; the others are taken to be like these


@dataclass(frozen=True)
class Header:
    """The first video stream by its header, 0 where that is silent; `frames` is a guess where they are not counted."""

    width_px: int
    height_px: int
    counted: int
    frames: int
    rate_hz: float
    length_s: float


def read_header(uri: str, max_frame_px: int = MAX_FRAME_PX) -> Header:
    """Raises:
    MediaError: it cannot be opened as a video.
    """
    if is_sequence(uri):
        return _sequence_header(uri, max_frame_px)
    with capture_log() as said, open_video(uri, max_frame_px) as (container, stream):
        rate_hz = float(stream.average_rate or 0.0)
        length_s = (container.duration or 0) / av.time_base
        context = stream.codec_context
        width, height = max((context.width, context.height), said.refused_size())  # what is refused counts as 0×0
        guess = round(length_s * rate_hz)
        if format_names(container) & IMAGE_FORMATS:
            return Header(width, height, counted=1, frames=1, rate_hz=0.0, length_s=0.0)
        return Header(width, height, stream.frames, stream.frames or guess, rate_hz, length_s)


def _sequence_header(uri: str, max_frame_px: int) -> Header:
    """Return the header of a sequence of images: its size is that of the first image that can be opened."""
    files = sequence_files(uri)
    for file in files[:-1]:
        with suppress(MediaError):
            return replace(read_header(file, max_frame_px), counted=len(files), frames=len(files))
    return replace(read_header(files[-1], max_frame_px), counted=len(files), frames=len(files))


def check(uri: str, limits: LimitsConfig) -> None:
    """Refuse what would take too much memory, before any is taken.

    Raises:
        TooLargeError: a frame or the video is beyond the limits.
        MediaError: it cannot be opened.
    """
    header = read_header(uri, limits.frame_px)
    if header.width_px * header.height_px > limits.frame_px:
        raise TooLargeError(
            f"{uri}: frames of {header.width_px}×{header.height_px} are beyond limits.frame_px={limits.frame_px:,}"
        )
    if header.counted > limits.frames:
        raise TooLargeError(f"{uri}: {header.counted:,} frames are beyond limits.frames={limits.frames:,}")
    if header.length_s > limits.duration_s:
        raise TooLargeError(f"{uri}: {header.length_s:,.0f} s are beyond limits.duration_s={limits.duration_s:,.0f}")


def estimate_frames(inputs: Sequence[Input], config: AnnotateConfig) -> int:
    """About how many frames will be looked at, by the headers of up to `_LOOKED_INTO` of the inputs."""
    step = max(1, len(inputs) // _LOOKED_INTO)
    some = inputs[::step]
    total = 0.0
    for video in some:
        try:
            header = read_header(video.uri)
        except (MediaError, av.error.FFmpegError):
            continue  # the run will say why
        frames, rate_hz = float(header.frames), header.rate_hz
        if rate_hz and (video.start_s is not None or video.end_s is not None):
            length_s = frames / rate_hz
            end_s = length_s if video.end_s is None else min(video.end_s, length_s)
            frames = max(0.0, end_s - (video.start_s or 0.0)) * rate_hz
        if rate_hz and config.sample_fps is not None:
            frames *= min(1.0, config.sample_fps / rate_hz)
        total += frames
    return round(total * len(inputs) / len(some)) if some else 0
