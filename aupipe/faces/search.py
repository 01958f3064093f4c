"""Face search over consecutive frames: whole frames on a fixed grid, and the surroundings of known faces in between.

Measured on 21 videos with 4,944 faces, against a search of every whole frame: the share of faces found, the median
distance of their points in distances of the eyes (`bench.py face_search`), and the relative time of detection.

    every   found   distance   time
    3       0.997   0.7 %      0.7
    5       0.997   1.7 %      0.5

On 20 videos the jitter of crops is 0.71, 0.93 and 0.74 px with 1, 3 and 5, and 0.14, 0.15 and 0.18 px after smoothing
(`bench.py crop_jitter`). The agreement of the starter models with an independent model does not depend on it: the mean
rank correlation is 0.62 with 3 and 5. So 5 is the default. It was 3 with earlier models, which agreed less on AU12 if
whole frames were rarer.

Variants that were worse in trials: points from the regions of all frames, after a search of whole frames of 320 pixels
(distance 6.9 %, 7 % of the faces are not found; jitter 0.56 px, the same agreement); regions around the last box,
without hysteresis (jitter); points without correction (distance); regions of 96 px (distance, jitter); regions of 160
and 192 px (time); sizes of regions in whole octaves (distance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from aupipe.config import Section
from aupipe.faces.detect import NO_FACES, Detections, Detector, Region, suppress
from aupipe.media.frames import Frame

_COLUMNS = ("boxes", "landmarks", "scores")


class SearchConfig(Section):
    """Settings of the face search. They are part of the cache key of every annotation."""

    # Whole frames are searched at every such frame, so a new face is found this late at most. 1: all frames.
    every: int = Field(default=5, ge=1, le=100)


class FaceSearch:
    """Search of the frames of one stream, in order.

    The frames of a cell have the same `index // every`. The first frame of a cell is searched as a whole. The others
    are searched around the faces of the frame before, so that a new face is found within `every` frames. They are
    searched as a whole after a shot cut, after a lost frame, at another frame size, if a known face is not found again,
    and until as many faces are found as before in the cell.

    At another scale the network gives other points, by up to a tenth of the distance of the eyes. So a whole frame's
    faces are searched in their regions too, and the difference corrects the faces of the following regions.

    The faces of a frame depend only on the frames of its cell up to this frame. A stream that begins with a cell thus
    has the same faces, wherever it begins.
    """

    def __init__(self, detector: Detector, every: int) -> None:
        self._detector, self._every = detector, every
        self._cell = -1
        self._size = (0, 0)
        self._known: _Known | None = None  # None: the next frame is searched as a whole
        self._most = 0  # number of faces in one frame of the cell, at most

    def faces(self, frame: Frame, cut: bool) -> Detections:
        """Return the faces of the next frame.

        Args:
            cut: a new shot begins with this frame.
        """
        if frame.image is None:
            self._known = None
            return NO_FACES
        size = (frame.image.shape[1], frame.image.shape[0])
        cell = frame.index // self._every
        if cut or cell != self._cell or size != self._size:
            self._known, self._most = None, 0
        self._cell, self._size = cell, size
        found = None if self._known is None else self._around(frame.image, self._known)
        if found is None:
            found = self._detector.detect(frame.image)
            self._most = max(self._most, len(found))
            self._known = self._regions(frame.image, found) if len(found) == self._most and self._every > 1 else None
        return found

    def _around(self, image: np.ndarray, known: _Known) -> Detections | None:
        """Return the faces near the known ones, which they replace; None if any of them is not found again."""
        regions = [
            region if region.holds(box) else self._detector.region(image, box)
            for region, box in zip(known.regions, known.faces.boxes, strict=True)
        ]
        near = self._near(image, known.faces, regions)
        if near is None:
            return None
        found = _corrected(near, known.offsets)
        order = np.lexsort((found.boxes[:, 1], found.boxes[:, 0], -found.scores))
        kept = suppress(found.take(order), self._detector.config.max_overlap)
        if len(kept) < len(found):  # Two regions contain the same face.
            return None
        self._known = _Known(kept, known.offsets[order], [regions[face] for face in order])
        return kept

    def _regions(self, image: np.ndarray, faces: Detections) -> _Known | None:
        """Return the faces with their regions; None if these do not show all of them, or cost more than the frame."""
        if self._detector.whole_costs_less(image, len(faces)):
            return None
        regions = [self._detector.region(image, box) for box in faces.boxes]
        near = self._near(image, faces, regions)
        return None if near is None else _Known(faces, _offsets(faces, near), regions)

    def _near(self, image: np.ndarray, faces: Detections, regions: Sequence[Region]) -> Detections | None:
        """Return the faces as their regions show them; None if any of these does not show its face."""
        near = [self._detector.detect_near(image, *each) for each in zip(faces.boxes, regions, strict=True)]
        return _joined(near) if all(map(len, near)) else None


@dataclass(frozen=True)
class _Known:
    """The n faces of a frame with their regions, and `offsets` (n, 7, 2) of their points, in sides of the box.

    An offset is the distance of a point from where its region showed it when the whole frame was searched.
    """

    faces: Detections
    offsets: np.ndarray
    regions: Sequence[Region]


def _offsets(faces: Detections, near: Detections) -> np.ndarray:
    return (_points(faces) - _points(near)) / near.boxes[:, None, 2:]


def _corrected(near: Detections, offsets: np.ndarray) -> Detections:
    points = _points(near) + offsets * near.boxes[:, None, 2:]
    boxes = np.concatenate([points[:, 0], points[:, 1] - points[:, 0]], axis=1)
    return Detections(boxes, points[:, 2:], near.scores)


def _points(faces: Detections) -> np.ndarray:
    """Return (n, 7, 2) float32: the corners of the box at its upper left and lower right, and the landmarks."""
    corners = np.stack([faces.boxes[:, :2], faces.boxes[:, :2] + faces.boxes[:, 2:]], axis=1)
    return np.concatenate([corners, faces.landmarks], axis=1)


def _joined(each: Sequence[Detections]) -> Detections:
    parts = [NO_FACES, *each]
    return Detections(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))


def begins_cell(indices: np.ndarray, every: int) -> np.ndarray:
    """Return (N,) whether each frame of a stream, by index, is the first one of its cell."""
    return np.diff(indices // every, prepend=-1) != 0
