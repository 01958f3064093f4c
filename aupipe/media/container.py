"""Opening a video with FFmpeg through PyAV: one place for what may be opened and how failure is named."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from aupipe.errors import (
    DecoderMissingError,
    MediaError,
    NotAVideoError,
    NotFoundError,
    NoVideoStreamError,
    PermissionDeniedError,
)
from aupipe.storage import is_uri, open_input

# FFmpeg demuxers that read one self-contained file. Playlists (hls, dash, concat, sdp, image sequences) are not here,
# so a playlist dressed as a video cannot lead FFmpeg to other files or hosts.
FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,mxf,gif,h264,hevc,m4v,mjpeg,ivf,obu,av1,rm,dv,wtv,nut,swf,3gp"
)

# Containers whose packets carry presentation times. AVI has none: FFmpeg makes them up in decoding order, which is
# wrong wherever frames are reordered.
TIMED_FORMATS = frozenset({"mov", "matroska", "mpeg", "mpegts", "flv", "asf", "ogg", "mxf", "nut", "wtv"})

# Media in which a key frame's time leads exactly to that key frame. Seeking in MPEG-PS and some AVI files loses the
# whole group of the target.
SEEKABLE_FORMATS = frozenset({"mov", "matroska"})


@contextmanager
def open_video(uri: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first real video stream (cover pictures are passed over), decoding on one thread.

    Raises:
        MediaError: a subclass that says why, with the path.
    """
    source = _remote(uri) if is_uri(uri) else _local(uri)
    try:
        container = av.open(source, mode="r", options={"format_whitelist": FORMATS, "protocol_whitelist": "file"})
    except (av.error.InvalidDataError, av.error.ArgumentError, av.error.DemuxerNotFoundError, EOFError):
        raise NotAVideoError(f"{uri}: not a video file that FFmpeg knows") from None
    try:
        with container:
            yield container, _video_stream(container, uri)
    finally:
        if not isinstance(source, str):
            source.close()


def format_names(container: InputContainer) -> frozenset[str]:
    """FFmpeg's names of the container format, e.g. {mov, mp4, …}."""
    return frozenset(container.format.name.split(","))


def media_time_s(pts: int, time_base: Any) -> float:
    """Presentation time in seconds, by the arithmetic of PyAV's `frame.time`: both are equal to the last bit."""
    return float(pts) * time_base.numerator / time_base.denominator


def _local(path: str) -> str:
    """FFmpeg's name of a regular file that can be read. FFmpeg itself would report a missing permission as bad data."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise NotAVideoError(f"{path}: a folder or device, not a video")
        with open(path, "rb"):
            return (
                f"file:{os.path.abspath(path)}"  # without "file:", a name such as "concat:a|b" is a protocol to FFmpeg
            )
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except PermissionError:
        raise PermissionDeniedError(f"{path}: no permission to read it") from None
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}") from None


def _remote(uri: str) -> Any:
    try:
        return open_input(uri)
    except FileNotFoundError:
        raise NotFoundError(f"{uri}: no such file") from None
    except PermissionError:
        raise PermissionDeniedError(f"{uri}: no permission to read it") from None


def _video_stream(container: InputContainer, uri: str) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise NoVideoStreamError(f"{uri}: holds no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise DecoderMissingError(f"{uri}: FFmpeg has no decoder for its video stream")
    stream.thread_type = "NONE"  # parallelism is over segments; threads would oversubscribe the cores
    stream.codec_context.thread_count = 1
    return stream
