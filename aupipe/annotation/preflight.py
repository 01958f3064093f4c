"""The headers of inputs, read without their packets, for limits and for estimates."""

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

_SAMPLED_INPUTS = 100  # The estimate assumes that the other inputs are like these.


@dataclass(frozen=True)
class Header:
    """The header of the first video stream.

    Attributes:
        counted: the number of frames that the header gives; 0 if it gives none.
        frames: the same, or an estimate from duration and rate.
        rate_hz, duration_s: 0 if the header gives none.
    """

    width_px: int
    height_px: int
    counted: int
    frames: int
    rate_hz: float
    duration_s: float


def read_header(uri: str, max_frame_px: int = MAX_FRAME_PX) -> Header:
    """Read the header of a video.

    Raises:
        MediaError: it cannot be opened as a video.
    """
    if is_sequence(uri):
        return _sequence_header(uri, max_frame_px)
    with capture_log() as log, open_video(uri, max_frame_px) as (container, stream):
        rate_hz = float(stream.average_rate or 0.0)
        duration, start = container.duration or 0, container.start_time or 0
        if "matroska" in format_names(container) and 0 < start < duration:  # its duration is the time of its end
            duration -= start
        duration_s = duration / av.time_base
        context = stream.codec_context
        width, height = max((context.width, context.height), log.refused_size())  # A refused frame size is read as 0×0.
        estimate = round(duration_s * rate_hz)
        if format_names(container) & IMAGE_FORMATS:
            return Header(width, height, counted=1, frames=1, rate_hz=0.0, duration_s=0.0)
        return Header(width, height, stream.frames, stream.frames or estimate, rate_hz, duration_s)


def _sequence_header(uri: str, max_frame_px: int) -> Header:
    """Return the header of a sequence of images: its size is that of the first image that can be opened."""
    files = sequence_files(uri)
    for file in files[:-1]:
        with suppress(MediaError):
            return replace(read_header(file, max_frame_px), counted=len(files), frames=len(files))
    return replace(read_header(files[-1], max_frame_px), counted=len(files), frames=len(files))


def check(uri: str, limits: LimitsConfig) -> None:
    """Reject an input that would take too much memory, before allocating any.

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
    if header.duration_s > limits.duration_s:
        raise TooLargeError(f"{uri}: {header.duration_s:,.0f} s are beyond limits.duration_s={limits.duration_s:,.0f}")


def estimate_frames(inputs: Sequence[Input], config: AnnotateConfig) -> int:
    """Estimate the number of frames to extract, from the headers of up to `_SAMPLED_INPUTS` inputs."""
    step = max(1, len(inputs) // _SAMPLED_INPUTS)
    sampled = inputs[::step]
    total = 0.0
    for video in sampled:
        try:
            header = read_header(video.uri)
        except (MediaError, av.error.FFmpegError):
            continue  # The run reports the reason.
        frames, rate_hz = float(header.frames), header.rate_hz
        if rate_hz and (video.start_s is not None or video.end_s is not None):
            duration_s = frames / rate_hz
            end_s = duration_s if video.end_s is None else min(video.end_s, duration_s)
            frames = max(0.0, end_s - (video.start_s or 0.0)) * rate_hz
        if rate_hz and config.sample_fps is not None:
            frames *= min(1.0, config.sample_fps / rate_hz)
        total += frames
    return round(total * len(inputs) / len(sampled)) if sampled else 0
