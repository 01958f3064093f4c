"""From what the user named to videos, and from a video to segments that workers can do apart from each other."""

from __future__ import annotations

import glob
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

    @property
    def frames(self) -> int:
        """How many it owns."""
        stop = self.span.first + self.span.expected if self.own_stop is None else self.own_stop
        return stop - self.own_start


def find_inputs(named: Sequence[str], limit: int | None = None) -> tuple[list[Input], int]:
    """The videos that the arguments name, sorted by id, and how many other files were passed over in folders.

    A path that is not there is kept: it becomes a row that says so.

    Raises:
        ConfigError: a folder without videos, a pattern without matches, or two inputs with one id.
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
        lost = info.missing if final else 0  # what the container counts but does not hold comes after all that it holds
        span = Span(end - first + lost, True, first, int(info.pts[first]), int(info.pts[end - 1]), seek)
        segments.append(Segment(video.uri, video.video_id, number, start, None if final else stop, span))
    return segments


def _search(argument: str) -> tuple[list[Input], int]:
    """The videos that one argument names, and how many other files it passes over."""
    if not argument:
        raise ConfigError("--input '': an empty name")
    if is_uri(argument) or os.path.lexists(argument):
        if is_uri(argument) or not os.path.isdir(argument):
            return [_input(argument, argument.rstrip("/").rsplit("/", 1)[-1])], 0
        return _search_folder(argument)
    if glob.has_magic(argument):
        matches = [_search(match) for match in sorted(glob.glob(argument, recursive=True))]
        if not matches:
            raise ConfigError(f"{argument}: nothing matches this pattern")
        return [video for videos, _ in matches for video in videos], sum(others for _, others in matches)
    return [_input(argument, os.path.basename(argument))], 0


def _search_folder(top: str) -> tuple[list[Input], int]:
    """Videos below a folder, through links; a folder that cannot be read is an input that cannot be done."""
    videos: list[Input] = []
    others = 0
    seen: set[str] = set()
    unreadable: list[OSError] = []
    for folder, below, names in os.walk(top, onerror=unreadable.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                videos.append(_input(path, Path(os.path.relpath(path, top)).as_posix()))
            else:
                others += 1
    videos += [_input(str(error.filename), os.path.relpath(error.filename, top)) for error in unreadable]
    if not videos:
        raise ConfigError(f"{top}: no video in this folder ({others} other files); name a file to try it anyway")
    return videos, others


def _input(uri: str, video_id: str) -> Input:
    """Tables hold text: a name that is no UTF-8 gets its odd bytes written as \\x.., and cannot be opened by that."""

    def as_text(name: str) -> str:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    return Input(as_text(uri), as_text(video_id))
