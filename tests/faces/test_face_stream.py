"""Detection over consecutive frames: what is kept of the frames before."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from math import comb

import cv2
import numpy as np
import pytest

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import NO_FACES, Detections, Detector, DetectorConfig
from aupipe.faces.face_stream import FrameFaces, detect_stream
from aupipe.faces.track import TrackingConfig
from aupipe.media.frames import Frame
from harness.clips import scene

pytestmark = pytest.mark.unit


BOX = (160, 160, 80, 80)  # of the face in `shot`
Sides = tuple[int, int, int, int]


class Scripted(Detector):
    """A detector that finds given boxes, one list a frame."""

    def __init__(self, script: Sequence[Sequence[Sides]]) -> None:
        self.config, self._script = DetectorConfig(), iter(script)

    def detect(self, image: np.ndarray) -> Detections:
        boxes = np.array(next(self._script), np.float32).reshape(-1, 4)
        points = np.zeros((len(boxes), 5, 2), np.float32) + ARCFACE_TEMPLATE
        return Detections(boxes, points, np.ones(len(boxes), np.float32))


def texture(seed: int, size: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(seed).integers(0, 255, (9, 9, 3), np.uint8), (size, size))


def shot(seed: int, at: tuple[int, int] = BOX[:2]) -> np.ndarray:
    """Return the same face, with its surroundings, at a place of the scene of this seed."""
    image, (left, top) = texture(seed, 400), at
    image[top - 40 : top + 120, left - 40 : left + 120] = texture(99, 160)
    return image


def stream(
    images: Sequence[np.ndarray | None], script: Sequence[Sequence[Sides]], restart: int = -1
) -> list[FrameFaces]:
    """Return the faces of frames of 25 per second; `script` has the boxes of each frame that is not lost."""
    shown = [Frame(n, n / 25, image, restart=n == restart) for n, image in enumerate(images)]
    return [faces for faces, _ in detect_stream(shown, Scripted(script), 0, TrackingConfig(max_gap_s=0.4))]


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


@pytest.mark.parametrize(("gap", "resumed"), [(1, True), (10, True), (11, False)])
def test_a_face_may_continue_one_that_ended_within_the_longest_gap(gap: int, resumed: bool) -> None:
    *_, last = stream([shot(0)] * (gap + 1), [[BOX], *[[]] * (gap - 1), [BOX]] if gap > 1 else [[BOX], [BOX]])
    assert last.links.tolist() == [0 if gap == 1 else -1]
    assert last.resumes == (((0, 0),) if resumed and gap > 1 else (),)


@pytest.mark.parametrize("step", [40, 90])
def test_a_face_does_not_continue_one_that_was_too_far_away(step: int) -> None:
    *_, last = stream([shot(0), shot(0), shot(0, (160 + step, 160))], [[BOX], [], [(160 + step, *BOX[1:])]])
    assert last.resumes == (((0, 0),) if step == 40 else (),)  # at most 0.7 sides of the box


def test_a_face_may_continue_one_of_a_frame_of_another_size() -> None:
    small = cv2.resize(shot(0), (200, 200), interpolation=cv2.INTER_AREA)
    *_, last = stream([shot(0), shot(0), small], [[BOX], [], [(80, 80, 40, 40)]])
    assert (last.cut, last.resumes) == (False, (((0, 0),),))


@pytest.mark.parametrize("script", [[[BOX], [], [BOX], [BOX]], [[BOX], [BOX], [], [BOX]]])
def test_no_face_continues_one_before_a_cut(script: list[list[Sides]]) -> None:
    """The face is the same, and the scene around it is another one from frame 2 on."""
    found = stream([shot(0), shot(0), shot(1), shot(1)], script)
    assert [faces.cut for faces in found] == [False, False, True, False]
    assert [faces.resumes for faces in found[2:]] == [((),) if boxes else () for boxes in script[2:]]


def test_across_a_cut_only_a_face_that_did_not_move_is_linked() -> None:
    still = stream([shot(0), shot(1)], [[BOX], [BOX]])
    moved = stream([shot(0), shot(1, (176, 160))], [[BOX], [(176, *BOX[1:])]])
    same_shot = stream([shot(0), shot(0, (176, 160))], [[BOX], [(176, *BOX[1:])]])
    assert [each[1].cut for each in (still, moved, same_shot)] == [True, True, False]
    assert [each[1].links.tolist() for each in (still, moved, same_shot)] == [[0], [-1], [0]]


def test_a_restart_of_the_clock_is_a_cut_that_no_face_survives() -> None:
    _, last = stream([shot(0)] * 2, [[BOX]] * 2, restart=1)
    assert (last.cut, last.links.tolist(), last.resumes) == (True, [-1], ((),))
