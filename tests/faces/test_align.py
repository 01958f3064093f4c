"""Alignment: the similarity, the crop, and the smoothing of landmarks."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from aupipe.faces.align import ARCFACE_TEMPLATE, crop, match_detections, similarity, smooth_landmarks
from aupipe.faces.detect import Detections, Detector, DetectorConfig, iou
from harness.clips import BACKGROUND, draw_face

pytestmark = pytest.mark.unit


def _turn(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def test_similarity_recovers_a_known_transform() -> None:
    matrix = _turn(0.3, 1.7, (12.0, -5.0))
    points = np.c_[ARCFACE_TEMPLATE, np.ones(5)] @ matrix.T
    np.testing.assert_allclose(similarity(ARCFACE_TEMPLATE, points), matrix, atol=1e-5)


def test_similarity_is_the_least_squares_solution_and_no_reflection() -> None:
    rng = np.random.default_rng(0)
    points = ARCFACE_TEMPLATE + rng.normal(0, 3, (5, 2))
    matrix = similarity(points, ARCFACE_TEMPLATE)

    def error(m: np.ndarray) -> float:
        return float(((np.c_[points, np.ones(5)] @ m.T - ARCFACE_TEMPLATE) ** 2).sum())

    assert all(error(matrix) <= error(matrix + rng.normal(0, 1e-3) * _turn(*d, (0, 0))) + 1e-9
               for d in ((0.0, 1.0), (np.pi / 2, 1.0)))  # fmt: skip
    mirrored = ARCFACE_TEMPLATE * [-1, 1]
    assert np.linalg.det(similarity(mirrored, ARCFACE_TEMPLATE)[:, :2]) > 0


def test_similarity_rejects_coinciding_points() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), ARCFACE_TEMPLATE)


def test_an_aligned_crop_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    np.testing.assert_array_equal(crop(image, ARCFACE_TEMPLATE, ARCFACE_TEMPLATE), image)


@pytest.mark.parametrize("factor", [4, 8])
def test_a_large_face_is_reduced_by_area_not_aliased(factor: int) -> None:
    # Stripes of one pixel alias under bilinear sampling alone. Reduced by area they are uniform gray.
    size = 112 * factor
    image = np.zeros((size, size, 3), np.uint8)
    image[:, ::2] = 255
    points = (ARCFACE_TEMPLATE + 0.5) * factor - 0.5
    got = crop(image, points, ARCFACE_TEMPLATE)[10:-10, 10:-10]
    assert abs(got.mean() - 127) < 2
    assert got.std() < 25


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.5])
def test_a_face_in_a_panorama_is_that_of_its_surroundings(scale: float) -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 33_000, 3), np.uint8)
    points = ARCFACE_TEMPLATE / scale + (32_500, 40)
    wide = crop(image, points, ARCFACE_TEMPLATE)
    near = crop(np.ascontiguousarray(image[:, 32_000:]), points - (32_000, 0), ARCFACE_TEMPLATE)
    np.testing.assert_allclose(wide.astype(int), near, atol=1)


def test_a_large_face_is_aligned_to_the_template() -> None:
    picture = np.pad(draw_face(200), ((100, 100), (100, 100), (0, 0)), constant_values=BACKGROUND)
    image = cv2.resize(picture, (2800, 2800), interpolation=cv2.INTER_CUBIC)
    points = Detector(DetectorConfig()).detect(image).landmarks[0]
    large = crop(image, points, ARCFACE_TEMPLATE).astype(int)
    small = crop(picture, (points + 0.5) / 7 - 0.5, ARCFACE_TEMPLATE)  # sampled bilinearly, at 0.9
    assert np.abs(large - small).mean() < 2


def test_iou() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 2, 2], [5, 5, 1, 1]], np.float32)
    np.testing.assert_allclose(iou(boxes[:1], boxes), [[1, 1 / 3, 0]], atol=1e-6)


def _detections(boxes: list[list[float]], points: list[np.ndarray]) -> Detections:
    return Detections(np.array(boxes, np.float32), np.array(points, np.float32), np.ones(len(boxes), np.float32))


def test_matches_are_mutual() -> None:
    before = _detections([[0, 0, 10, 10], [100, 0, 10, 10]], [ARCFACE_TEMPLATE] * 2)
    now = _detections([[101, 0, 10, 10], [1, 0, 10, 10], [3, 0, 10, 10]], [ARCFACE_TEMPLATE] * 3)
    assert match_detections(before, now).tolist() == [1, 0, -1]


def _moving(count: int, noise: float, speed: float = 2.0) -> tuple[list[Detections], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    frames = [
        _detections(
            [[speed * i, 0, 100, 100]], [ARCFACE_TEMPLATE + np.array([speed * i, 0]) + rng.normal(0, noise, (5, 2))]
        )
        for i in range(count)
    ]
    links = [np.full(1, -1), *(match_detections(a, b) for a, b in pairwise(frames))]
    return frames, links


def test_smoothing_keeps_uniform_motion_and_reduces_noise() -> None:
    still, links = _moving(20, noise=0)
    for at in range(20):
        np.testing.assert_allclose(smooth_landmarks(still, links, at, 4), still[at].landmarks, atol=1e-4)
    noisy, links = _moving(200, noise=0.5)
    error = [smooth_landmarks(noisy, links, at, 4) - still_points for at, still_points in
             ((at, ARCFACE_TEMPLATE + np.array([2.0 * at, 0])) for at in range(10, 190))]  # fmt: skip
    assert 0.15 < np.std(error) < 0.25  # binomial kernel of radius 4: 0.5 · √(C(16, 8) / 4⁸) = 0.22


def test_smoothing_is_limited_by_the_chain_and_the_radius() -> None:
    frames, links = _moving(20, noise=0.5)
    broken = [*links[:12], np.full(1, -1), *links[13:]]
    np.testing.assert_array_equal(smooth_landmarks(frames, broken, 11, 4), frames[11].landmarks)
    np.testing.assert_array_equal(smooth_landmarks(frames, broken, 12, 4), frames[12].landmarks)
    assert not np.array_equal(smooth_landmarks(frames, links, 11, 4), frames[11].landmarks)
    np.testing.assert_array_equal(
        smooth_landmarks(frames, links, 10, 3), smooth_landmarks(frames[7:14], links[7:14], 3, 3)
    )
