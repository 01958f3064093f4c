"""Detection over consecutive frames: what is kept of the frames before."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import NO_FACES, Detections, Detector, DetectorConfig
from aupipe.faces.face_stream import detect_stream
from aupipe.faces.track import TrackingConfig
from aupipe.media.frames import Frame

pytestmark = pytest.mark.unit


class Flickering(Detector):
    """A detector that finds the face of every other frame."""

    def __init__(self) -> None:
        self.config, self._calls = DetectorConfig(), 0

    def detect(self, image: np.ndarray) -> Detections:
        self._calls += 1
        if self._calls % 2:
            return NO_FACES
        return Detections(np.array([[20, 20, 80, 80]], np.float32), ARCFACE_TEMPLATE[None], np.ones(1, np.float32))


def test_the_images_of_faces_that_end_are_not_kept() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def stream() -> Iterator[Frame]:
        for index in range(60):
            image = np.random.default_rng(0).integers(0, 255, (640, 640, 3), np.uint8)
            alive.append(weakref.ref(image))
            yield Frame(index, index / 60, image)

    kept, resumed = [], 0
    for faces, _ in detect_stream(stream(), Flickering(), 2, TrackingConfig()):
        kept.append(sum(image() is not None for image in alive))
        resumed += sum(map(bool, faces.resumes))
    assert max(kept) <= 2 * 2 + 2  # of the frames around one, and the next one
    assert resumed == 29
