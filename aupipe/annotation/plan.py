"""From what the user named to videos, and from a video to segments that workers can do apart from each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from aupipe.errors import ConfigError
from aupipe.media.frames import Span
from aupipe.media.probe import VideoInfo
from aupipe.storage import is_uri

# A folder is searched for these; a file that is named outright is tried whatever its suffix.
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mpe", ".m2v", ".ts", ".m2ts", ".mts", ".wmv"}
    | {".asf", ".flv", ".3gp", ".3g2", ".ogv", ".mxf", ".vob", ".mjpeg", ".gif"}
)


@dataclass(frozen=True)
class Input:
    """One video to annotate. `video_id` is its path below the folder that was named, or its name."""

    uri: str
    video_id: str


@dataclass(frozen=True)
class Segment:
    """A run of frames of one video that one worker decodes.

    Attributes:
        number: 0-based, in time order.
        own_start, own_stop: indices of the frames whose rows it writes; own_stop None = to the end of the video.
        span: the frames that it decodes: some more than it owns, so that smoothing sees the same neighbours as it
            would without the cut.
    """

    uri: str
    video_id: str
    number: int
    own_start: int
    own_stop: int | None
    span: Span


def find_inputs(named: Sequence[str], limit: int | None = None) -> tuple[list[Input], int]:
    """The videos that the arguments name, sorted by id, and how many other files were passed over in folders.

    A path that is not there is kept: it becomes a row that says so.

    Raises:
        ConfigError: a folder without videos, or two inputs with one id.
    """
    found: dict[str, Input] = {}
    passed_over = 0
    for argument in named:
        inputs, others = _search(argument)
        passed_over += others
        for video in inputs:
            clash = found.setdefault(video.video_id, video)
            if clash.uri != video.uri:
                raise ConfigError(
                    f"{clash.uri} and {video.uri} would both be video_id {video.video_id!r}; "
                    "name a common parent folder, so that their ids differ"
                )
    return [found[key] for key in sorted(found)][:limit], passed_over


def cut_into_segments(video: Input, info: VideoInfo, segment_s: float, smoothing_radius: int) -> list[Segment]:
    """Cut a video at key frames, each piece at least `segment_s` long; one piece where its index cannot be trusted.

    A piece owns the frames from `lead` after its key frame to `lead` after the next cut, and decodes `lead` more on
    both sides. It seeks one key frame earlier, so that frames that lean on the group before (open GOP) are whole.
    """
    if info.pts is None or len(info.key_pts) == 0:
        return [Segment(video.uri, video.video_id, 0, 0, None, Span(info.frames_expected, info.pts is not None))]
    lead = max(smoothing_radius, 1)  # 1: whether a shot cut lies before the first owned frame needs the one before it
    ticks = segment_s / float(info.time_base)
    cuts: list[int] = []  # places in key_pts
    last = int(info.pts[0])
    for place, key in enumerate(info.key_pts.tolist()):
        if place > 0 and key - last >= ticks:
            cuts.append(place)
            last = key
    indices = [int(np.searchsorted(info.pts, info.key_pts[place])) for place in cuts]
    edges = [0, *(min(index + lead, len(info.pts)) for index in indices), len(info.pts)]
    segments = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        if start == stop:
            continue
        final = number == len(edges) - 2
        first = 0 if number == 0 else indices[number - 1]
        seek = None if number == 0 else int(info.key_pts[cuts[number - 1] - 1])
        end = len(info.pts) if final else min(stop + lead, len(info.pts))
        span = Span(end - first, True, first, int(info.pts[first]), int(info.pts[end - 1]), seek)
        segments.append(Segment(video.uri, video.video_id, number, start, None if final else stop, span))
    return segments


def _search(argument: str) -> tuple[list[Input], int]:
    if is_uri(argument) or not os.path.isdir(argument):
        return [Input(argument, argument.rstrip("/").rsplit("/", 1)[-1])], 0
    top = Path(argument)
    files = sorted(path for path in top.rglob("*") if path.is_file() and not path.name.startswith("."))
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        raise ConfigError(
            f"{argument}: no video in this folder ({len(files)} other files); name a file to try it anyway"
        )
    return [Input(str(path), path.relative_to(top).as_posix()) for path in videos], len(files) - len(videos)
