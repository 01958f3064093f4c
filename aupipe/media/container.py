"""Opening a video with FFmpeg through PyAV: one place for what may be opened and how failure is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from aupipe.errors import DecoderMissingError, NotAVideoError, NoVideoStreamError
from aupipe.media.source import check_local, named_errors, opened
from aupipe.storage import is_uri

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


MAX_FRAME_PX = 2**27  # 134 million, four times 8K


@contextmanager
def open_video(uri: str, max_frame_px: int = MAX_FRAME_PX) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first real video stream (cover pictures are passed over), decoding on one thread.

    Args:
        max_frame_px: pixels; a decoder takes no memory for a larger frame, whatever the container said of it.

    Raises:
        MediaError: a subclass that says why, with the path; in the block too, where the file cannot be read any more.
    """
    with named_errors(uri), ExitStack() as stack:
        if is_uri(uri):
            source = stack.enter_context(opened(uri))
        else:
            check_local(uri)
            source = f"file:{os.path.abspath(uri)}"  # without "file:", the name "concat:a|b" is a protocol to FFmpeg
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(max_frame_px)}
        try:
            container = stack.enter_context(av.open(source, mode="r", options=options, metadata_errors="replace"))
        except (av.error.InvalidDataError, av.error.ArgumentError, av.error.DemuxerNotFoundError, EOFError):
            raise NotAVideoError(f"{uri}: not a video file that FFmpeg knows") from None
        stream = _video_stream(container, uri)
        stream.codec_context.options = {"max_pixels": str(max_frame_px)}
        yield container, stream


def format_names(container: InputContainer) -> frozenset[str]:
    """FFmpeg's names of the container format, e.g. {mov, mp4, …}."""
    return frozenset(container.format.name.split(","))


def media_time_s(pts: int, time_base: Any) -> float:
    """Presentation time in seconds, by the arithmetic of PyAV's `frame.time`: both are equal to the last bit."""
    return float(pts) * time_base.numerator / time_base.denominator


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
