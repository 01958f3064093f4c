"""Appearance: people at the same place differ, and light, expression and small motion do not change a person."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from aupipe.faces.appearance import Appearance, appearance, is_unchanged, same_person
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.shot_boundaries import every
from harness.clips import draw_face, scene
from harness.people import call

pytestmark = pytest.mark.unit
PEOPLE = range(10)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(DetectorConfig())


def describe(image: np.ndarray, detector: Detector) -> Appearance:
    (box,) = detector.detect(image).boxes
    return appearance(image, box)


@pytest.mark.parametrize("step", [1, 2, 5, 200])
def test_sampled_pixels(step: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)
    for part in (image, image[3:80, 5:99], image[:1, -1:]):
        np.testing.assert_array_equal(every(part, step), part[::step, ::step])


def drawn(person: int, number: int = 0) -> np.ndarray:
    return call([{}] * number + [{(0, 0): person}], (1, 1))[-1]


def gray(image: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def test_all_pairs_of_people_differ_and_each_is_stable_for_a_second(detector: Detector) -> None:
    first = [describe(drawn(person), detector) for person in PEOPLE]
    assert not any(same_person(a, b) for a, b in combinations(first, 2))
    for number in (1, 10, 25):
        assert all(same_person(a, describe(drawn(p, number), detector)) for a, p in zip(first, PEOPLE, strict=True))


def test_without_color_edges_distinguish_people(detector: Detector) -> None:
    first = [describe(gray(drawn(person)), detector) for person in PEOPLE]
    alike = sum(same_person(a, b) for a, b in combinations(first, 2))
    assert alike <= 4  # of 45 pairs of drawings with features at similar places
    assert all(same_person(a, describe(gray(drawn(p, 1)), detector)) for a, p in zip(first, PEOPLE, strict=True))


@pytest.mark.parametrize("gain", [0.5, 0.75, 1.2])
def test_brightness_does_not_change_the_person(detector: Detector, gain: float) -> None:
    for person in PEOPLE:
        image = drawn(person)
        bright = np.clip(image * gain, 0, 255).astype(np.uint8)
        assert same_person(describe(image, detector), describe(bright, detector))


def test_another_skin_color_in_the_same_scene_is_another_person(detector: Detector) -> None:
    image = scene(1)[0]
    smiling = scene(9)[-1]
    assert same_person(describe(image, detector), describe(smiling, detector))
    image[40:200, 80:240] = draw_face(160, skin=(160, 110, 80))
    assert not same_person(describe(scene(1)[0], detector), describe(image, detector))


def test_a_box_that_jumps_is_registered(detector: Detector) -> None:
    image = drawn(3)
    (box,) = detector.detect(image).boxes
    larger = box + np.array([-0.07, -0.07, 0.14, 0.14], np.float32) * box[2]
    assert same_person(appearance(image, box), appearance(image, larger))


@pytest.mark.parametrize("factor", [0.5, 3.0, 9.0])
def test_the_descriptor_does_not_depend_on_the_size_of_the_picture(detector: Detector, factor: float) -> None:
    image = drawn(1)
    (box,) = detector.detect(image).boxes
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    assert same_person(appearance(image, box), appearance(scaled, box * factor))


@pytest.mark.parametrize("box", [(-500, -500, 10, 10), (150, 140, 60, 60), (0, 0, 0, 0), (-9, -9, 900, 900)])
def test_a_box_outside_of_the_picture_has_a_descriptor(box: tuple[float, ...]) -> None:
    got = appearance(drawn(0), np.array(box, np.float32))
    assert np.isfinite(got.edges).all()
    assert np.isfinite(got.tint).all()
    assert same_person(got, got) or got.gray.std() == 0


def test_other_surroundings_do_not_change_the_person(detector: Detector) -> None:
    image = drawn(3)
    (box,) = detector.detect(image).boxes
    covered = image.copy()
    covered[: int(box[1]) - 4] = (0, 160, 0)
    covered[int(box[1] + box[3]) + 4 :] = (160, 0, 0)
    before, now = appearance(image, box), appearance(covered, box)
    assert float(np.abs(before.tint - now.tint).mean()) > 0.2
    assert same_person(before, now)


def test_only_the_same_face_at_the_same_place_is_unchanged(detector: Detector) -> None:
    pictures = [drawn(person) for person in PEOPLE]
    boxes = [detector.detect(picture).boxes[0] for picture in pictures]
    for person, (picture, box) in enumerate(zip(pictures, boxes, strict=True)):
        assert is_unchanged(picture, box, drawn(person, 1), box)
        assert is_unchanged(picture, box, (picture * 0.7).astype(np.uint8), box)
        others = [other for number, other in enumerate(pictures) if number != person]
        assert not any(is_unchanged(picture, box, other, box) for other in others)


def test_a_face_elsewhere_or_of_another_size_is_not_unchanged(detector: Detector) -> None:
    picture = drawn(0)
    box = detector.detect(picture).boxes[0]
    side = box[2:].min()
    for change in ([0.1, 0, 0, 0], [0, 0.1, 0, -0.1]):
        assert is_unchanged(picture, box, picture, box + side * np.array(change, np.float32))
    for change in ([0.2, 0, 0, 0], [0, 0, 0, 0.2], [0, -0.2, 0, 0]):
        assert not is_unchanged(picture, box, picture, box + side * np.array(change, np.float32))
    assert not is_unchanged(picture, box, picture[:-1], box)


def test_flat_and_dark_pictures_do_not_count_as_unchanged() -> None:
    noise = np.random.default_rng(0).integers(0, 4, (120, 160, 3), np.uint8)
    box = np.array([40, 30, 60, 60], np.float32)
    assert not is_unchanged(noise, box, noise, box)
    assert not is_unchanged(np.zeros_like(noise), box, np.zeros_like(noise), box)


@pytest.mark.parametrize("box", [[-90, -90, 60, 60], [400, 10, 60, 60], [150, 110, 60, 60], [10, 10, 0, 0]])
def test_boxes_outside_the_frame(box: list[float]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    assert is_unchanged(picture, np.float32(box), picture, np.float32(box)) in (True, False)
