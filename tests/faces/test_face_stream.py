"""Detection over consecutive frames: what is kept of the frames before."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from math import comb

import numpy as np
import pytest

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import NO_FACES, Detections, Detector, DetectorConfig
from aupipe.faces.face_stream import detect_stream
from aupipe.faces.track import TrackingConfig
from aupipe.media.frames import Frame
from harness.clips import scene

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


@pytest.mark.parametrize(("rate", "reach"), [(60, 4), (25, 4), (24000 / 1001, 4), (15, 2), (10, 1), (5, 0), (0.5, 0)])
def test_landmarks_are_averaged_over_a_time_in_which_a_head_hardly_moves(rate: float, reach: int) -> None:
    images = scene(9)
    shown = [Frame(index, round(index / rate, 3), image) for index, image in enumerate(images)]
    stream = list(detect_stream(shown, Detector(DetectorConfig()), 4, TrackingConfig(max_gap_s=3.0)))
    assert all(faces.links.tolist() == [0] for faces, _ in stream[1:])
    found = np.stack([faces.faces.landmarks[0] for faces, _ in stream]).astype(float)
    weights = np.array([comb(2 * reach, k) for k in range(2 * reach + 1)]) / 4**reach
    expected = np.tensordot(weights, found[4 - reach : 5 + reach], 1)
    np.testing.assert_allclose(stream[4][1][0], expected, atol=1e-3)
    if reach:
        assert np.abs(stream[4][1][0] - found[4]).max() > 0.01


@pytest.mark.parametrize("step_ms", [45, 60, 90, 180])  # 60 and 90: of GIFs
def test_the_rounding_of_times_does_not_choose_the_frames_that_are_averaged(step_ms: int) -> None:
    images, detector, found = scene(9), Detector(DetectorConfig()), []
    for start_ms in (0, 1400, 3_600_000):
        shown = [Frame(index, (start_ms + index * step_ms) / 1000, image) for index, image in enumerate(images)]
        found.append([points for _, points in detect_stream(shown, detector, 4)])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
