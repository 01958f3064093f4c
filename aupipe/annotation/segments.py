"""Videos split into segments that workers process independently."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from aupipe.annotation.inputs import Input
from aupipe.errors import NoClockError, NoFramesError
from aupipe.faces.search import begins_cell
from aupipe.media.container import ROUNDING_S
from aupipe.media.frames import Span
from aupipe.media.probe import VideoInfo

_SHARE = 1 / 16  # of a video: about as many segments as a machine has cores
_LEAST_S, _MOST_S = 30.0, 60.0
# The rule by which frames are sampled. Videos sampled by another rule are annotated again.
SAMPLING = 3
_MOST_ROUNDING = 0.25  # of the step between sampled frames


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive frames of one video that one worker decodes.

    Attributes:
        number: 0-based, in time order.
        write_start, write_stop: indices of the frames whose rows it writes; write_stop None: to the end of the video.
        span: the frames that it decodes. It includes a halo around the written frames, so that smoothing uses the same
            neighbors as without the split.
        sampled_frames: indices of the requested frames; the others are only decoded. None: all frames.
    """

    uri: str
    video_id: str
    number: int
    write_start: int
    write_stop: int | None
    span: Span
    sampled_frames: tuple[int, ...] | None = None

    @property
    def frames(self) -> int:
        """The minimum number of rows that it writes."""
        stop = self._stop
        if self.sampled_frames is None:
            return stop - self.write_start
        return sum(self.write_start <= index < stop for index in self.sampled_frames)

    @property
    def _stop(self) -> int:
        return self.span.first + self.span.expected if self.write_stop is None else self.write_stop

    @property
    def is_whole(self) -> bool:
        """True if the video has no other segment."""
        return self.number == 0 and (self.write_stop is None or not self.span.exact)

    def to_row(self) -> dict[str, Any]:
        """Return the segment as a row. `asdict` would make deep copies, and an archive has millions of segments."""
        span = {name: getattr(self.span, name) for name in _SPAN}
        return {name: getattr(self, name) for name in _SEGMENT} | {"span": span}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Segment:
        """Read the segment from a row."""
        sampled = row["sampled_frames"]
        span = Span(**row["span"] | {"seek_pts": tuple(row["span"]["seek_pts"])})
        return cls(**row | {"span": span, "sampled_frames": None if sampled is None else tuple(sampled)})

    @property
    def written_frames(self) -> list[int]:
        """The indices of the frames whose rows it writes, if the video has as many as expected."""
        frames = range(self.write_start, self._stop) if self.sampled_frames is None else self.sampled_frames
        return [index for index in frames if self.write_start <= index < self._stop]


_SEGMENT, _SPAN = ([field.name for field in fields(kind)] for kind in (Segment, Span))


def cut_into_segments(
    video: Input,
    info: VideoInfo,
    segment_s: float | None,
    smoothing_radius: int,
    sample_fps: float | None = None,
    assume_fps: float | None = None,
    max_gap_s: float = 0.0,
    search_every: int = 1,
) -> list[Segment]:
    """Split the requested part of a video at key frames into segments of at least `segment_s` each.

    None: a sixteenth of this part, but at least 30 and at most 60 seconds.

    A video whose index is unreliable becomes one segment.

    A segment begins with the first cell of the face search (`faces.search`) at or after its key frame. The frames that
    it writes start `smoothing_radius` frames and `max_gap_s` later, and end at the same distance after the next split.
    The segment decodes `smoothing_radius` frames more. It seeks to one key frame earlier, so that frames that depend on
    the previous group (open GOP) are complete, and for damaged frames further back.

    Args:
        sample_fps: the maximum number of frames per second; None: all frames.
        assume_fps: the same value as for `probe`.
        max_gap_s: a face is compared with the faces that were last detected at most this long before.
        search_every: `SearchConfig.every`.

    Raises:
        NoClockError: a part in time or a sampling rate is requested, but the frames have no times.
        NoFramesError: the requested part has no frames.
    """
    single = info.frames_expected == 1 and video.start_s is None and video.end_s is None  # an image at any rate
    if info.start_s is None and video.asked(sample_fps) and not single:
        raise NoClockError(
            f"{video.uri}: no frame of it has a time, so {video.asked(sample_fps)} has no meaning; give its rate with "
            "--set assume_fps=RATE"
        )
    times = _times_s(info)
    chosen = _chosen(times, info, video, sample_fps)
    present = _present(info)
    lost, chosen = chosen[chosen >= present], chosen[chosen < present]
    if len(chosen) == 0:
        raise NoFramesError(f"{video.uri}: no frame lies in the requested part {video.asked(sample_fps)}")
    if info.pts is None or len(info.key_pts) == 0:
        span = Span.whole(info, assume_fps)
        sampled = (*chosen.tolist(), *lost.tolist())
        if len(sampled) == len(times):
            return [Segment(video.uri, video.video_id, 0, 0, None, span)]
        return [Segment(video.uri, video.video_id, 0, sampled[0], sampled[-1] + 1, span, sampled)]
    # At least 1, because a shot boundary before the first written frame is found from the frame before it.
    halo = max(smoothing_radius, 1)
    keys = np.searchsorted(info.pts, info.key_pts)  # indices of frames
    cells = np.flatnonzero(begins_cell(chosen, search_every))
    places = np.searchsorted(chosen, keys[_cuts(times, keys, chosen, segment_s)])  # in `chosen`
    places = np.searchsorted(cells, places)
    places = np.unique(cells[places[places < len(cells)]])
    # The first frame after the longest gap. The tolerance is for rounding of the difference of two times.
    gap_ends = np.searchsorted(times[chosen], times[chosen[places]] + max_gap_s + 1e-6)
    starts_at = np.maximum(places + halo, gap_ends if max_gap_s > 0 else 0)
    starts_at, first_of = np.unique(starts_at, return_index=True)
    places = places[first_of]
    edges = [0, *starts_at[starts_at < len(chosen)].tolist(), len(chosen)]
    segments = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        final = number == len(edges) - 2
        begin = 0 if number == 0 else int(places[number - 1])
        end = len(chosen) if final else min(stop + halo, len(chosen))
        first, last = int(chosen[begin]), int(chosen[end - 1])
        sampled = chosen[begin:end].tolist()
        if final and len(lost):  # They come after all others, so the segment reads on to the last frame that exists.
            span, last = Span.part(info, first, present), int(lost[-1])
            span = replace(span, expected=last + 1 - first)
            sampled += lost.tolist()
        else:
            span = Span.part(info, first, last + 1)
        write_stop = int(chosen[stop]) if not final else None if last == len(times) - 1 else last + 1
        sampled_frames = None if last - first + 1 == len(sampled) else tuple(sampled)
        segments.append(
            Segment(video.uri, video.video_id, number, int(chosen[start]), write_stop, span, sampled_frames)
        )
    return segments


def missing_times_s(info: VideoInfo) -> np.ndarray:
    """Return the times of the frames that the container counts after the last one that it holds."""
    return _times_s(info)[_present(info) :]


def _present(info: VideoInfo) -> int:
    """Return the number of frames with a place in the container. In AVI some of them may be missing."""
    return info.frames_expected - info.missing if info.pts is None else len(info.pts)


def _times_s(info: VideoInfo) -> np.ndarray:
    """Return the media times (frames_expected,) of all frames; evenly spaced as far as the container gives no times."""
    present = _present(info)
    if info.pts is not None:
        step = float(np.median(np.diff(info.pts))) if present > 1 else 0.0
        ticks = np.concatenate([info.pts, info.pts[-1] + step * np.arange(1, info.frames_expected - present + 1)])
        return ticks * float(info.time_base)
    step_s = info.duration_s / present if info.duration_s else 0.0
    return (info.start_s or 0.0) + np.arange(info.frames_expected) * step_s


def _chosen(times: np.ndarray, info: VideoInfo, video: Input, sample_fps: float | None) -> np.ndarray:
    """Return the indices of the frames in the requested part, only the first in each 1/`sample_fps` s.

    A frame within the rounding of times of the edge of such a slot may be in either slot. It is in the one that follows
    the slot of the frame before, so that frames at the sampling rate stay even, also if their rate is a little lower.
    Slots begin anew where the clock restarts.
    """
    start_s = -np.inf if video.start_s is None else video.start_s
    indices = np.flatnonzero((times >= start_s) & (times < (np.inf if video.end_s is None else video.end_s)))
    if sample_fps is None or len(indices) == 0:
        return indices
    origin = times[indices[0]] if video.start_s is None else video.start_s
    places = (times[indices] - origin) * sample_fps + 1e-6  # for the rounding of floating-point numbers
    rounding = min(_rounding_s(info) * sample_fps, _MOST_ROUNDING)
    lows, highs = (np.floor(each).astype(np.int64).tolist() for each in (places - rounding, places + rounding))
    epochs = np.searchsorted(info.restarts, indices, side="right").tolist()
    chosen, slot, before = [], -1, epochs[0]
    for index, low, high, epoch in zip(indices.tolist(), lows, highs, epochs, strict=True):
        if epoch != before or high != slot:
            slot = slot + 1 if epoch == before and low <= slot + 1 <= high else high
            chosen.append(index)
        before = epoch
    return np.array(chosen, np.int64)


def _rounding_s(info: VideoInfo) -> float:
    """Return by how much the times of frames may be rounded; 0 if the clock counts frames, as in AVI."""
    tick_s = float(info.time_base)
    if tick_s <= ROUNDING_S or info.pts is None:
        return ROUNDING_S
    steps = np.diff(info.pts)
    steps = steps[steps > 0]
    counts_frames = len(steps) == 0 or not (steps % steps.min()).any()
    return 0.0 if counts_frames else tick_s


def _cuts(times: np.ndarray, keys: np.ndarray, chosen: np.ndarray, segment_s: float | None) -> list[int]:
    """Return the positions in `keys` (K,) of key frames among the chosen frames, at least `segment_s` apart."""
    cuts = []
    last = times[chosen[0]]
    if segment_s is None:
        segment_s = min(max(float(times[chosen[-1]] - last) * _SHARE, _LEAST_S), _MOST_S)
    for position, index in enumerate(keys.tolist()):
        if chosen[0] < index <= chosen[-1] and times[index] - last >= segment_s:
            cuts.append(position)
            last = times[index]
    return cuts
