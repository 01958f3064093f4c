"""Opening of videos with FFmpeg through PyAV: the permitted formats, and the errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from aupipe.errors import DecoderMissingError, NotAVideoError
from aupipe.manifests import SUFFIXES
from aupipe.media.byte_source import check_local, named_errors, opened
from aupipe.media.ffmpeg_log import capture_log
from aupipe.media.image_files import IMAGE_FORMATS, has_image_suffix, image_format, signature_format
from aupipe.media.video_track import choose, packet_counts
from aupipe.storage import is_uri

# FFmpeg demuxers that read one self-contained file. Playlists (hls, dash, concat, sdp, image sequences) are excluded,
# because a playlist with the name of a video could make FFmpeg read other files or contact other hosts.
FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,mxf,gif,h264,hevc,m4v,mjpeg,ivf,obu,av1,rm,dv,wtv,nut,swf,3gp,"
    "yuv4mpegpipe,apng,dhav,ifv,vc1,vc1test,vvc,evc,cine,ty,nuv,gxf,lxf,nsv,h261,h263,dirac,cavsvideo,avs2,avs3,smjpeg,"
    "mjpeg_2000,kux,flic,smk"
)

# Containers whose packets have presentation times. AVI has none: FFmpeg derives them from the decoding order, which is
# wrong if frames are reordered.
TIMED_FORMATS = frozenset(
    {"mov", "matroska", "mpeg", "mpegts", "flv", "asf", "ogg", "mxf", "nut", "wtv"}
    | {"gif", "apng", "ivf", "yuv4mpegpipe", "dv", "dhav", "cine", "gxf", "lxf", "smjpeg"}
)

# Elementary streams, which have no presentation times. FFmpeg assumes 25 frames per second, or the rate of the codec's
# header; both are guesses.
CLOCKLESS_FORMATS = frozenset(
    {"h264", "hevc", "vvc", "evc", "m4v", "mpegvideo", "mjpeg", "mjpeg_2000", "obu", "av1", "vc1", "vc1test", "h261"}
    | {"h263", "dirac", "cavsvideo", "avs2", "avs3"}
    | IMAGE_FORMATS
)

# Containers in which seeking to the time of a key frame reaches exactly that key frame. In MPEG-PS and some AVI files
# seeking loses the whole group of pictures of the target.
SEEKABLE_FORMATS = frozenset({"mov", "matroska"})

# MPEG's program and transport streams, whose clock has 33 bits and wraps around after 26.5 hours.
PROGRAM_STREAMS = frozenset({"mpeg", "mpegts"})

# Files that are often lists of inputs, but are not read as such.
_LISTS = (".txt", ".list", ".lst", ".json", ".ndjson", ".xlsx", ".xls", ".ods", ".numbers")

_MAX_HEADER_BYTES = 2**24  # with attached fonts and pictures

MAX_FRAME_PX = 2**27  # 134 million, four times 8K

# Most containers round times to at most this, Matroska, FLV and ASF to milliseconds, and copies into other containers
# keep the rounded times. Differences of times are rounded once more. Durations that differ by less count as equal;
# otherwise it would depend on the place in a video whether five frames last 0.2 s.
ROUNDING_S = 1e-3


@contextmanager
def open_container(
    uri: str, max_frame_px: int = MAX_FRAME_PX, use_edit_lists: bool = True, whole: bool = False
) -> Iterator[InputContainer]:
    """Open the container.

    Args:
        max_frame_px: pixels. A decoder allocates no memory for a larger frame, whatever the container states.
        use_edit_lists: hide the frames that edit lists of MP4 and MOV exclude.
        whole: as in `opened`.

    Raises:
        MediaError: a subclass by cause, with the path; also within the block if the file becomes unreadable.
    """
    with named_errors(uri), ExitStack() as stack:
        if is_uri(uri):
            source = stack.enter_context(opened(uri, whole=whole))
        else:
            check_local(uri)
            source = f"file:{uri}"  # without "file:", FFmpeg takes the name "concat:a|b" for a protocol
        still = image_format(uri)
        options = {
            "format_whitelist": still or FORMATS, "protocol_whitelist": "file", "max_pixels": str(max_frame_px),
            "ignore_editlist": str(int(not use_edit_lists)),
            "correct_ts_overflow": "0",  # `clock` handles wraps; FFmpeg would add 26.5 hours to joined streams
        }  # fmt: skip
        try:
            # FFmpeg would choose the demuxer of an image by its name, which may be the pattern of a list (a%03d.jpg).
            container = av.open(source, mode="r", format=still or None, options=options, metadata_errors="replace")
        except (
            av.error.InvalidDataError, av.error.ArgumentError, av.error.DemuxerNotFoundError, EOFError,
            av.error.PermissionError,  # some demuxers return it for invalid data; the file itself can be read
        ):  # fmt: skip
            raise NotAVideoError(f"{uri}: {_refusal(uri, source, options)}") from None
        except av.error.OSError as error:  # FFmpeg's error for a Matroska file that is cut within its header, too
            if error.errno != errno.EIO or not _can_be_read(uri):
                raise
            raise NotAVideoError(
                f"{uri}: it ends within its header, so it was cut short, or is still written"
            ) from None
        yield stack.enter_context(container)


@contextmanager
def open_video(
    uri: str, max_frame_px: int = MAX_FRAME_PX, track: int | None = None, whole: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container and one of its video tracks, which is decoded on one thread.

    Args:
        max_frame_px, whole: as in `open_container`.
        track: number of the video track, from 0; None: the track chosen by `video_track.choose`, as in a player.

    Raises:
        MediaError: as in `open_container`, or there is no such track, or no decoder for it.
    """
    with open_container(uri, max_frame_px, whole=whole) as container:
        counts = None
        number = choose(container.streams.video, uri, track)
        if number is None:
            counts = packet_counts(container)
            number = choose(container.streams.video, uri, track, counts)
        assert number is not None
        # Some recorders write an edit list of length zero, and players then show all frames.
        hidden = _hides_all_frames(container, container.streams.video[number])
        if counts is None and not hidden:
            yield container, _ready(container, number, uri, max_frame_px)
            return
    # Packets were read, and not all formats can seek.
    with open_container(uri, max_frame_px, use_edit_lists=not hidden, whole=whole) as container:
        yield container, _ready(container, number, uri, max_frame_px)


def _hides_all_frames(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether the container has an index, and an edit list hides all of the stream's frames in it."""
    entries = stream.index_entries
    return "mov" in format_names(container) and len(entries) > 0 and all(entry.is_discard for entry in entries)


def format_names(container: InputContainer) -> frozenset[str]:
    """Return FFmpeg's names of the container format, e.g. {mov, mp4, …}."""
    return frozenset(container.format.name.split(","))


def uses_edit_lists(container: InputContainer) -> bool:
    """Return whether the container was opened with `use_edit_lists`."""
    return container.options["ignore_editlist"] == "0"


def media_time_s(pts: int, time_base: Any) -> float:
    """Return the presentation time in seconds, bit-identical to PyAV's `frame.time`."""
    return float(pts) * time_base.numerator / time_base.denominator


def _can_be_read(uri: str) -> bool:
    """Return whether a file is no larger than headers are, and its disk returns all of it."""
    with opened(uri) as file:
        return len(file.read(_MAX_HEADER_BYTES)) < _MAX_HEADER_BYTES


def _refusal(uri: str, source: Any, options: dict[str, str]) -> str:
    """Return the reason why FFmpeg does not open the source, from its log, because the error does not contain it."""
    if not isinstance(source, str):
        source.seek(0)
    with capture_log() as log, suppress(av.error.FFmpegError, EOFError):
        av.open(source, mode="r", options=options).close()
    with open(source[5:], "rb") if isinstance(source, str) else nullcontext(source) as file:
        file.seek(0)
        still = signature_format(file.read(64))
    if still:
        return f"a still image ({still.removesuffix('_pipe')}) with another suffix; rename it to have it annotated"
    if has_image_suffix(uri):
        return "not an image file that FFmpeg knows"
    if uri.lower().endswith(_LISTS):
        return (
            f"not a video file; a list of inputs has a column uri and one of the suffixes {', '.join(SUFFIXES)}; "
            "fix: save or rename it so"
        )
    if log.mentions("not on whitelist"):
        return "a format that aupipe does not read: a playlist or list of images, or one that may reference other files"
    return "not a video file that FFmpeg supports"


def _ready(container: InputContainer, number: int, uri: str, max_frame_px: int) -> VideoStream:
    stream = container.streams.video[number]
    if stream.codec_context is None:
        raise DecoderMissingError(f"{uri}: FFmpeg has no decoder for its video stream")
    stream.codec_context.options = {"max_pixels": str(max_frame_px)}
    stream.thread_type = "NONE"  # segments are processed in parallel, so decoder threads would oversubscribe the cores
    stream.codec_context.thread_count = 1
    return stream
