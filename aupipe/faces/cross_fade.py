"""Cross-fades from one picture of a face to another, in which no two neighboring frames differ enough for a new person.

In a cross-fade the middle one of three equally spaced pictures of a place is about the mean of the outer ones, and
they differ everywhere, not only where a mouth opens or an edge moves. Slow fades are often missed, because pictures of
half a second are compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import cv2
import numpy as np

from aupipe.faces.track import gap_s
from aupipe.media.frames import Frame

_STEPS = (1, 2, 4, 6, 12)  # frames from one picture of three to the next
_SIDE_PX = 320  # frames are kept with a longer side of less than twice this
_GRID = 12  # samples of a box per axis, each the mean of about 2×2 pixels
# The more alike the outer pictures are, the straighter the change between them must be. Straightness is the cosine of
# the changes to and from the middle picture.
_CORRELATIONS, _MIN_STRAIGHTNESS = (0.8, 0.9, 0.97), (0.85, 0.93, 0.99)
_MIN_EVENNESS = 0.4  # ratio of the sizes of these changes
_MIN_CHANGE = 8.0  # gray levels from the first to the last picture
# Least share of the box that changes by half of the mean change. A mouth that opens or an edge that moves changes less.
_MIN_SPREAD = 0.5


@dataclass(frozen=True)
class _Kept:
    """A frame, whose image is reduced by the whole factor `step`."""

    frame: Frame
    image: np.ndarray
    step: int


@dataclass
class _Place:
    """The box (4,) of a face in one frame, and samples (N,) of the picture in it; None if they were not needed yet."""

    box: np.ndarray
    samples: np.ndarray | None = None


class FadingFace:
    """A face of a frame.

    Attributes:
        places: of the same face in this and the frames before, newest last.
        faded: the last frame in which it was fading, without its image.
    """

    def __init__(self, box: np.ndarray) -> None:
        self.places = [_Place(box)]
        self.faded: Frame | None = None


class CrossFades:
    """The cross-fades in one stream of frames, which are added in order.

    The results for a frame depend on the frames at most `max_s` before.
    """

    def __init__(self, max_s: float) -> None:
        # A fade is found from frames of half of this time, and begins if there was none in the other half.
        self._reach_s = max_s / 2
        self._kept: deque[_Kept] = deque(maxlen=2 * _STEPS[-1] + 1)

    def add(self, frame: Frame, cut: bool) -> None:
        """Add the next frame. A fade does not reach across a shot cut, a lost frame or another frame size."""
        if frame.image is None:
            self._kept.clear()
            return
        step = max(1, max(frame.image.shape[:2]) // _SIDE_PX)
        image = frame.image
        if step > 1:
            height, width = image.shape[:2]
            small = (max(1, width // step), max(1, height // step))
            image = cv2.resize(image, small, interpolation=cv2.INTER_NEAREST)
        if cut or (self._kept and self._kept[-1].image.shape != image.shape):
            self._kept.clear()
        self._kept.append(_Kept(replace(frame, image=None), image, step))

    def begins(self, face: FadingFace, before: FadingFace) -> bool:
        """Return whether a face begins to fade to another one at the last frame, so that it has another id from now on.

        Args:
            before: the face at the frame before; `face` gets its places.
        """
        face.places = [*before.places[-2 * _STEPS[-1] :], *face.places]
        face.faded = before.faded
        return self.is_active(face) and (
            before.faded is None or gap_s(before.faded, self._kept[-1].frame) > self._reach_s
        )

    def is_active(self, face: FadingFace) -> bool:
        """Return whether a face fades to another one at the last frame."""
        if not self._is_active(face):
            return False
        face.faded = self._kept[-1].frame
        return True

    def _is_active(self, face: FadingFace) -> bool:
        last, here = len(self._kept) - 1, face.places[-1]
        steps = [step for step in _STEPS if last >= 2 * step and self._is_near(last - 2 * step, last)]
        if not steps:
            return False

        @cache
        def at(back: int) -> np.ndarray:
            """Return samples (N,) of the place of the face, so many frames before."""
            return _samples(self._kept[last - back], here.box)

        here.samples = at(0)

        def likeness(back: int) -> float:
            """Return the correlation with the face so many frames before, at its own place, because a face may move."""
            if back < len(face.places) and (known := face.places[-1 - back].samples) is not None:
                return _correlation(known, at(0))
            place = face.places[max(len(face.places) - 1 - back, 0)]
            return _correlation(_samples(self._kept[last - back], place.box), at(0))

        # Most faces have hardly changed, and need no further comparison.
        if likeness(2 * steps[-1]) > _CORRELATIONS[-1]:
            return False
        return any(_is_fading(at(2 * step), partial(at, step), at(0), partial(likeness, 2 * step)) for step in steps)

    def _is_near(self, first: int, last: int) -> bool:
        return gap_s(self._kept[first].frame, self._kept[last].frame) <= self._reach_s


def _is_fading(
    before: np.ndarray, middle: Callable[[], np.ndarray], now: np.ndarray, likeness: Callable[[], float]
) -> bool:
    """Return whether the middle one of three samples (N,) of a place is about the mean of the others, which differ.

    Args:
        middle, likeness: the middle one, and the correlation of the face then and now, which are computed if needed.
    """
    correlation = _correlation(before, now)
    if correlation > _CORRELATIONS[-1] or _norm(now - before) < _MIN_CHANGE * np.sqrt(len(now)):
        return False
    first, second = middle() - before, now - middle()
    sizes = sorted((_norm(first), _norm(second)))
    straightness = float(first @ second) / max(sizes[0] * sizes[1], 1e-6)
    if straightness < _least_straightness(correlation) or sizes[0] < _MIN_EVENNESS * sizes[1]:
        return False
    correlation = likeness()
    if correlation > _CORRELATIONS[-1] or straightness < _least_straightness(correlation):
        return False
    return _spread(now - before) >= _MIN_SPREAD


def _least_straightness(correlation: float) -> float:
    return float(np.interp(correlation, _CORRELATIONS, _MIN_STRAIGHTNESS))


def _spread(change: np.ndarray) -> float:
    """Return the share of samples that change by at least half of the mean change. Light that changes is subtracted."""
    colors = change.reshape(-1, 3)
    sizes = np.abs(colors - np.median(colors, axis=0)).sum(axis=1)
    return float(np.mean(sizes >= sizes.mean() / 2))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second) / max(_norm(first) * _norm(second), 1e-6)


def _norm(values: np.ndarray) -> float:
    return float(np.sqrt(values @ values))


def _samples(kept: _Kept, box: np.ndarray) -> np.ndarray:
    """Return samples (N,) float32 of the picture in a box, each channel with the mean 0, because light may change."""
    x, y, width, height = (each / kept.step for each in box.tolist())
    rows, columns = kept.image.shape[:2]
    x0, y0 = min(max(round(x), 0), columns - 1), min(max(round(y), 0), rows - 1)
    x1, y1 = min(max(round(x + width), x0 + 1), columns), min(max(round(y + height), y0 + 1), rows)
    step = max(1, min(x1 - x0, y1 - y0) // (2 * _GRID))
    small = cv2.resize(kept.image[y0:y1:step, x0:x1:step], (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    colors = small.reshape(-1, 3).astype(np.float32)
    colors -= np.add.reduce(colors) / len(colors)  # `mean` takes four times as long
    return colors.ravel()
