"""Search of consecutive frames: whole frames on the grid and where needed, regions in between, and no trace of cuts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from aupipe.faces.detect import Detections, Detector, DetectorConfig
from aupipe.faces.search import FaceSearch, begins_cell
from aupipe.media.frames import Frame
from harness.clips import BACKGROUND, draw_face

pytestmark = pytest.mark.unit

EVERY = 5


class Counting(Detector):
    """A detector that counts the whole frames."""

    whole = 0

    def detect(self, image: np.ndarray) -> Detections:
        self.whole += 1
        return super().detect(image)


def picture(faces: Sequence[tuple[int, int, int]], size: tuple[int, int] = (400, 220)) -> np.ndarray:
    """Return an image with faces at (left, top), each with its side."""
    image = np.full((size[1], size[0], 3), BACKGROUND, np.uint8)
    for left, top, side in faces:
        image[top : top + side, left : left + side] = draw_face(side)
    return image


def search(
    images: Sequence[np.ndarray | None], every: int = EVERY, first: int = 0, cuts: Sequence[int] = ()
) -> tuple[list[Detections], list[int]]:
    """Return the faces of the frames from `first` on, and the indices of those that were searched as a whole."""
    detector = Counting(DetectorConfig())
    stream = FaceSearch(detector, every)
    found, whole = [], []
    for index in range(first, len(images)):
        before = detector.whole
        found.append(stream.faces(Frame(index, index / 25, images[index]), index in cuts))
        whole += [index] * (detector.whole - before)
    return found, whole


def equal(first: Detections, second: Detections) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("boxes", "landmarks", "scores"))


MOVING = [picture([(20 + 3 * i, 30 + i, 120), (240, 80 - i, 90)]) for i in range(13)]


def test_whole_frames_are_searched_on_the_grid_only() -> None:
    exact, all_frames = search(MOVING, every=1)
    found, whole = search(MOVING)
    assert all_frames == list(range(13))
    assert whole == [0, 5, 10]
    for index, (a, b) in enumerate(zip(found, exact, strict=True)):
        assert len(a) == len(b) == 2
        if index in whole:
            assert equal(a, b)
        order = np.argsort(a.boxes[:, 0]), np.argsort(b.boxes[:, 0])
        np.testing.assert_allclose(a.landmarks[order[0]], b.landmarks[order[1]], atol=4)
        np.testing.assert_allclose(a.boxes[order[0]], b.boxes[order[1]], atol=8)


def test_a_stream_that_begins_with_a_cell_has_the_same_faces() -> None:
    images = [*MOVING[:3], None, *MOVING[4:7], picture([(30, 40, 120)]), *MOVING[8:]]
    expected, _ = search(images, cuts=(6,))
    for first in (5, 10):
        found, _ = search(images, first=first, cuts=(6,))
        assert all(map(equal, found, expected[first:]))


def test_a_new_face_is_found_with_the_next_cell() -> None:
    one, two = picture([(20, 40, 120)]), picture([(20, 40, 120), (240, 60, 110)])
    found, whole = search([one] * 3 + [two] * 8)
    assert list(map(len, found)) == [1] * 5 + [2] * 6
    assert whole == [0, 5, 10]


def test_whole_frames_are_searched_while_a_face_is_missing() -> None:
    one, two = picture([(20, 40, 120)]), picture([(20, 40, 120), (240, 60, 110)])
    found, whole = search([two] * 2 + [one] * 2 + [two] * 6)
    assert list(map(len, found)) == [2, 2, 1, 1, 2, 2, 2, 2, 2, 2]
    assert whole == [0, 2, 3, 4, 5]
    _, whole = search([two] * 2 + [one] * 9)
    assert whole == [0, 2, 3, 4, 5, 10]


def test_whole_frames_are_searched_after_a_cut_a_lost_frame_and_another_size() -> None:
    images: list[np.ndarray | None] = [picture([(20, 40, 120)])] * 25
    images[7] = None
    images[11:] = [picture([(20, 40, 120)], (420, 220))] * 14
    found, whole = search(images, cuts=(3, 21))
    assert whole == [0, 3, 5, 8, 10, 11, 15, 20, 21]
    assert [len(faces) for faces in found] == [1] * 7 + [0] + [1] * 17


def test_one_face_in_two_regions_is_one_face() -> None:
    """The second person vanishes, and the first moves to where both regions show it."""
    two, one = picture([(60, 60, 90), (170, 60, 90)]), picture([(115, 60, 90)])
    found, whole = search([two, one, one])
    assert list(map(len, found)) == [2, 1, 1]
    assert whole == [0, 1, 2]


def test_a_crowd_is_searched_as_a_whole() -> None:
    crowd = picture([(5 + 65 * x, 5 + 70 * y, 60) for x in range(6) for y in range(3)])
    found, whole = search([crowd] * 3)
    assert len(found[0]) > 5
    assert whole == [0, 1, 2]


def test_a_face_at_the_edge_and_a_large_one_are_followed() -> None:
    wide = cv2.resize(picture([(50, 12, 225)], (325, 250)), (1300, 1000))
    large = [np.roll(wide, 6 * i, axis=1) for i in range(5)]
    edge = [picture([(2, 30 + 2 * i, 110)]) for i in range(5)]
    for images in (large, edge):
        found, whole = search(images)
        exact, _ = search(images, every=1)
        assert whole == [0]
        for a, b in zip(found, exact, strict=True):
            np.testing.assert_allclose(a.boxes, b.boxes, atol=0.08 * b.boxes[0, 2])


def test_a_region_follows_a_face_across_the_frame() -> None:
    images = [picture([(5 + 10 * i, 40, 110)]) for i in range(28)]
    found, whole = search(images, every=100)
    exact, _ = search(images, every=1)
    assert whole == [0]
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=9)


def test_faces_whose_scores_change_places_keep_their_own_corrections_and_regions() -> None:
    """Regions show the large face at a smaller scale than whole frames do, and the small one at the same scale."""

    def shown(large: bool, small: bool) -> list[np.ndarray]:
        """Return frames with these faces; the small one is blurred in the first, the large one pale in the others."""
        first, other = (picture([(10, 20, 180)] * large + [(290, 80, 80)] * small) for _ in range(2))
        first[:, 240:] = cv2.GaussianBlur(first[:, 240:], (0, 0), 5)
        other[:, :240] = other[:, :240] // 8 + 90
        return [first, other, other, other]

    both, whole = search(shown(True, True))
    left_first = [bool(each.boxes[0, 0] < each.boxes[1, 0]) for each in both]
    assert (whole, left_first) == ([0], [True, False, False, False])
    large, small = search(shown(True, False))[0], search(shown(False, True))[0]
    for index, found in enumerate(both):
        order = found.boxes[:, 0].argsort()
        expected = np.concatenate([large[index].landmarks, small[index].landmarks])
        np.testing.assert_allclose(found.landmarks[order], expected, atol=0.6)


def test_cells_of_all_and_of_sampled_frames() -> None:
    assert np.flatnonzero(begins_cell(np.arange(12), 5)).tolist() == [0, 5, 10]
    assert np.flatnonzero(begins_cell(np.arange(3, 12), 5)).tolist() == [0, 2, 7]
    assert begins_cell(np.arange(0, 60, 7), 5).all()
    assert begins_cell(np.array([0, 3, 6, 9, 12]), 5).tolist() == [True, False, True, False, True]
