"""Face detection over consecutive frames, with smoothed landmarks. Annotation and preprocessing of videos share it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from aupipe.faces.align import MAX_STEP_S, match_detections, smooth_landmarks
from aupipe.faces.appearance import Appearance, appearance, is_unchanged, same_person
from aupipe.faces.cross_fade import CrossFades, FadingFace
from aupipe.faces.detect import Detections, Detector
from aupipe.faces.search import FaceSearch
from aupipe.faces.shot_boundaries import is_cut, thumbnail
from aupipe.faces.track import TrackingConfig, distance, gap_s, scaled
from aupipe.media.frames import Frame


@dataclass(frozen=True)
class FrameFaces:
    """A frame and its n faces.

    Attributes:
        links: (n,) index of the same face in the previous frame, −1 if there is none. Across a shot cut, only a face
            whose picture is unchanged has one, because the other tiles of a video call may have changed.
        cut: there is a shot cut between the previous frame and this one.
        resumes: for each face, the (frame index, face) of the earlier faces that it may continue after a gap. These
            ended at most `max_gap_s` earlier, in the same shot, close to it, with a similar appearance. Empty for a
            face with a link.
    """

    frame: Frame
    faces: Detections
    links: np.ndarray
    cut: bool
    resumes: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class _Ended:
    """A face without a link from the following frame.

    Attributes:
        frame: without its image, because the images of a second of 4K video would take 1.5 GB.
        size: width and height of the frame.
    """

    frame: Frame
    size: tuple[int, int]
    face: int
    box: np.ndarray
    appearance: Appearance


@dataclass(frozen=True)
class _Look:
    """A face in a frame (H, W, 3), with the descriptor of its appearance, which is computed when it is asked for."""

    image: np.ndarray
    box: np.ndarray
    fading: FadingFace

    @cached_property
    def appearance(self) -> Appearance:
        return appearance(self.image, self.box)

    def continues(self, before: _Look, cut: bool) -> bool:
        """Return whether it can be the person of a face in the frame before. After a cut it must be unchanged."""
        if is_unchanged(before.image, before.box, self.image, self.box):
            return True
        return not cut and same_person(before.appearance, self.appearance)


def detect_stream(
    frames: Iterable[Frame],
    detector: Detector,
    radius: int,
    tracking: TrackingConfig | None = None,
    search_every: int = 1,
) -> Iterator[tuple[FrameFaces, np.ndarray]]:
    """Yield each frame with its smoothed landmarks (n, 5, 2), as soon as the ±radius frames around it are available.

    Landmarks are averaged over frames that are at most `radius` frames and `radius` times `MAX_STEP_S` away.

    The result for a frame depends only on the detections of this frame, of the `radius` frames on each side and, for
    `resumes` and cross-fades, of the frames at most `tracking.max_gap_s` before it. Detections depend on the cell of
    the frame, as `FaceSearch` describes.

    Args:
        tracking: the longest gap and step; None: `resumes` is not computed and stays empty.
        search_every: `SearchConfig.every`; 1: all frames are searched as a whole.
    """
    search = FaceSearch(detector, search_every)
    fades = CrossFades(tracking.max_gap_s if tracking else 0.0)
    window: deque[FrameFaces] = deque(maxlen=2 * radius + 1)
    ended: list[_Ended] = []
    last: FrameFaces | None = None
    last_looks: list[_Look] = []
    before: np.ndarray | None = None
    waiting = 0  # frames at the end of the window that are not yielded yet
    for frame in frames:
        now = None if frame.image is None else thumbnail(frame.image)
        cut = frame.restart or (before is not None and now is not None and is_cut(before, now))
        faces = search.faces(frame, cut)
        fades.add(frame, cut)
        looks = [] if frame.image is None else [_Look(frame.image, box, FadingFace(box)) for box in faces.boxes]
        links = np.full(len(faces), -1)
        if cut:
            ended = []
        if last is not None and not frame.restart:
            links = match_detections(_in_pixels_of(frame, last), faces)
            for face in np.flatnonzero(links >= 0):
                # Overlap is not identity: a tile of a video call may switch to another person, at once or gradually.
                look, look_before = looks[face], last_looks[links[face]]
                if fades.begins(look.fading, look_before.fading) or not look.continues(look_before, cut):
                    links[face] = -1
            if tracking is not None and not cut:
                gone = sorted({*range(len(last.faces))} - {*links.tolist()})
                ended += [
                    _Ended(
                        replace(last.frame, image=None), size_of(last.frame), face, last.faces.boxes[face],
                        last_looks[face].appearance,
                    )
                    for face in gone
                ]  # fmt: skip
                ended = [each for each in ended if 0 <= gap_s(each.frame, frame) <= tracking.max_gap_s]
        resumes = tuple(
            _resumes(ended, frame, look, tracking)
            if links[face] < 0 and tracking and not fades.is_active(look.fading)
            else ()
            for face, look in enumerate(looks)
        )
        last, last_looks = FrameFaces(frame, faces, links, cut, resumes), looks
        window.append(last)
        before = now  # None at a lost frame: comparing across it would make rows depend on the start of the segment
        waiting += 1
        if waiting > radius:
            yield _smoothed(window, len(window) - waiting, radius)
            waiting -= 1
    while waiting:
        yield _smoothed(window, len(window) - waiting, radius)
        waiting -= 1


def _smoothed(window: Sequence[FrameFaces], at: int, radius: int) -> tuple[FrameFaces, np.ndarray]:
    current = window[at]
    # In a slow or sampled video, a head moves too far between frames for the mean of its positions to be its place.
    is_near = [abs(gap_s(each.frame, current.frame)) <= radius * MAX_STEP_S for each in window]
    first, stop = at, at + 1
    while first > 0 and is_near[first - 1]:
        first -= 1
    while stop < len(window) and is_near[stop]:
        stop += 1
    near = [window[number] for number in range(first, stop)]
    faces = [_in_pixels_of(current.frame, each) for each in near]
    return current, smooth_landmarks(faces, [each.links for each in near], at - first, radius)


def _in_pixels_of(frame: Frame, other: FrameFaces) -> Detections:
    """Return the faces of another frame in the pixels of `frame`, because a stream may change its size."""
    if frame.image is None or other.frame.image is None or frame.image.shape == other.frame.image.shape:
        return other.faces
    return other.faces.scaled(size_of(other.frame), size_of(frame))


def size_of(frame: Frame) -> tuple[int, int]:
    """Return the width and height of a decoded frame."""
    assert frame.image is not None
    return frame.image.shape[1], frame.image.shape[0]


def _resumes(
    ended: Sequence[_Ended], frame: Frame, look: _Look, tracking: TrackingConfig
) -> tuple[tuple[int, int], ...]:
    if not ended:
        return ()
    boxes = np.stack([scaled(each.box, each.size, size_of(frame)) for each in ended])
    near = distance(boxes, look.box[None])[:, 0] <= tracking.max_step
    return tuple(
        (each.frame.index, each.face)
        for each, close in zip(ended, near.tolist(), strict=True)
        if close and same_person(each.appearance, look.appearance)
    )
