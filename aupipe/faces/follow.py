"""Detection along consecutive frames with the alignment smoothed: what observing and preprocessing a video share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aupipe.faces.align import neighbours, smooth_landmarks
from aupipe.faces.cuts import is_cut, thumbnail
from aupipe.faces.detect import NO_FACES, Detections, Detector
from aupipe.media.frames import Frame


@dataclass(frozen=True)
class Seen:
    """A frame and its n faces.

    Attributes:
        links: (n,) the same face in the frame before, −1 if there is none.
        cut: a shot cut lies between this frame and the one before.
    """

    frame: Frame
    faces: Detections
    links: np.ndarray
    cut: bool


def follow(frames: Iterable[Frame], detector: Detector, radius: int) -> Iterator[tuple[Seen, np.ndarray]]:
    """Each frame with its smoothed landmarks (n, 5, 2), as soon as the ±radius frames around it are known.

    What is given for a frame depends on it and on the `radius` frames to each side, and on nothing else.
    """
    window: deque[Seen] = deque(maxlen=2 * radius + 1)
    before: np.ndarray | None = None
    waiting = 0  # frames at the window's end that are not given out yet
    for frame in frames:
        faces, now = (NO_FACES, None) if frame.image is None else (detector.detect(frame.image), thumbnail(frame.image))
        cut = frame.restart or (before is not None and now is not None and is_cut(before, now))
        linked = bool(window) and not cut
        links = neighbours(window[-1].faces, faces) if linked else np.full(len(faces), -1)
        window.append(Seen(frame, faces, links, cut))
        before = now  # a lost frame hides a cut: to look past it would make rows depend on where segments begin
        waiting += 1
        if waiting > radius:
            yield _smoothed(window, len(window) - waiting, radius)
            waiting -= 1
    while waiting:
        yield _smoothed(window, len(window) - waiting, radius)
        waiting -= 1


def _smoothed(window: Sequence[Seen], at: int, radius: int) -> tuple[Seen, np.ndarray]:
    seen = window[at]
    return seen, smooth_landmarks([s.faces for s in window], [s.links for s in window], at, radius)
