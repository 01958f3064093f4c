"""Detection along consecutive frames with the alignment smoothed: what observing and preprocessing a video share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aupipe.faces.align import match_detections, smooth_landmarks
from aupipe.faces.appearance import Appearance, appearance, same_person
from aupipe.faces.detect import NO_FACES, Detections, Detector
from aupipe.faces.shot_boundaries import is_cut, thumbnail
from aupipe.faces.track import ASSUMED_FRAME_S, TrackingConfig, distance, scaled
from aupipe.media.frames import Frame


@dataclass(frozen=True)
class FrameFaces:
    """A frame and its n faces.

    Attributes:
        links: (n,) the same face in the frame before, −1 if there is none.
        cut: a shot cut lies between this frame and the one before.
        resumes: for each face, the (frame index, face) of earlier faces that it may continue after a gap: those that
            ended within the longest gap, in the same shot, near it, and look alike. Empty where a link is given.
    """

    frame: Frame
    faces: Detections
    links: np.ndarray
    cut: bool
    resumes: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class _Ended:
    """A face that no face of the frame after it continues."""

    frame: Frame
    face: int
    box: np.ndarray
    appearance: Appearance


def detect_stream(
    frames: Iterable[Frame], detector: Detector, radius: int, tracking: TrackingConfig | None = None
) -> Iterator[tuple[FrameFaces, np.ndarray]]:
    """Yield each frame with its smoothed landmarks (n, 5, 2), as soon as the ±radius frames around it are known.

    What is given for a frame depends on it, on the `radius` frames to each side and, for `resumes`, on those within
    `tracking.max_gap_s` before it, and on nothing else.

    Args:
        tracking: the longest gap and step; None: `resumes` is not asked for and stays empty.
    """
    window: deque[FrameFaces] = deque(maxlen=2 * radius + 1)
    ended: list[_Ended] = []
    last: FrameFaces | None = None
    last_looks: list[Appearance] = []
    before: np.ndarray | None = None
    waiting = 0  # frames at the window's end that are not given out yet
    for frame in frames:
        faces, looks, now = NO_FACES, list[Appearance](), None
        if frame.image is not None:
            faces, now = detector.detect(frame.image), thumbnail(frame.image)
            looks = [appearance(frame.image, box) for box in faces.boxes]
        cut = frame.restart or (before is not None and now is not None and is_cut(before, now))
        links = np.full(len(faces), -1)
        if cut:
            ended = []
        elif last is not None:
            links = match_detections(_as_large_as(frame, last), faces)
            for face in np.flatnonzero(links >= 0):
                # A place is not a person: the tile of a video call may show another one from one frame to the next.
                if not same_person(last_looks[links[face]], looks[face]):
                    links[face] = -1
            if tracking is not None:
                gone = np.setdiff1d(np.arange(len(last.faces)), links).tolist()
                ended += [_Ended(last.frame, face, last.faces.boxes[face], last_looks[face]) for face in gone]
                ended = [each for each in ended if 0 <= _gap_s(each.frame, frame) <= tracking.max_gap_s]
        resumes = tuple(
            _resumes(ended, frame, faces.boxes[face], looks[face], tracking) if links[face] < 0 and tracking else ()
            for face in range(len(faces))
        )
        last, last_looks = FrameFaces(frame, faces, links, cut, resumes), looks
        window.append(last)
        before = now  # a lost frame hides a cut: to look past it would make rows depend on where segments begin
        waiting += 1
        if waiting > radius:
            yield _smoothed(window, len(window) - waiting, radius)
            waiting -= 1
    while waiting:
        yield _smoothed(window, len(window) - waiting, radius)
        waiting -= 1


def _smoothed(window: Sequence[FrameFaces], at: int, radius: int) -> tuple[FrameFaces, np.ndarray]:
    seen = window[at]
    faces = [_as_large_as(seen.frame, s) for s in window]
    return seen, smooth_landmarks(faces, [s.links for s in window], at, radius)


def _as_large_as(frame: Frame, seen: FrameFaces) -> Detections:
    """Return the faces of an earlier or later frame in the pixels of this one: a stream may change its size."""
    if frame.image is None or seen.frame.image is None or frame.image.shape == seen.frame.image.shape:
        return seen.faces
    return seen.faces.scaled(size_of(seen.frame), size_of(frame))


def size_of(frame: Frame) -> tuple[int, int]:
    """Width and height of a frame that was decoded."""
    assert frame.image is not None
    return frame.image.shape[1], frame.image.shape[0]


def _gap_s(before: Frame, now: Frame) -> float:
    if before.time_s is None or now.time_s is None:
        return (now.index - before.index) * ASSUMED_FRAME_S
    return now.time_s - before.time_s


def _resumes(
    ended: Sequence[_Ended], frame: Frame, box: np.ndarray, look: Appearance, tracking: TrackingConfig
) -> tuple[tuple[int, int], ...]:
    if not ended:
        return ()
    near = (
        distance(np.stack([scaled(each.box, size_of(each.frame), size_of(frame)) for each in ended]), box[None])[:, 0]
        <= tracking.max_step
    )
    return tuple(
        (each.frame.index, each.face)
        for each, close in zip(ended, near.tolist(), strict=True)
        if close and same_person(each.appearance, look)
    )
