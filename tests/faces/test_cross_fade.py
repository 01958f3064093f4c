"""Cross-fades: a picture that fades to another one is found, and motion, light and repeated frames are not."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from aupipe.faces.cross_fade import CrossFades, FadingFace
from aupipe.media.frames import Frame
from harness.people import call, textured

pytestmark = pytest.mark.unit
BOX = np.array([50, 40, 70, 80], np.float32)
MAX_S = 1.0


def person(number: int, frames: int) -> list[np.ndarray]:
    return textured(call([{(0, 0): number}] * frames, (1, 1)), number)


def faded(length: int, first: int = 2, second: int = 7, at: int = 13) -> list[np.ndarray]:
    """Return frames of one person that fade to another one within `length` frames from frame `at` on."""
    pictures = zip(person(first, at + length + 13), person(second, at + length + 13), strict=True)
    shares = [min(max((number - at + 1) / length, 0), 1) for number in range(at + length + 13)]
    return [
        cv2.addWeighted(a, 1 - share, b, share, 0) for (a, b), share in zip(pictures, shares, strict=True)
    ]  # fmt: skip


def active(images: Sequence[np.ndarray | None], rate: float = 25.0, cuts: Sequence[int] = ()) -> list[int]:
    """Return the frames at which the picture in the box is fading."""
    fades = CrossFades(MAX_S)
    found = []
    for number, image in enumerate(images):
        fades.add(Frame(number, number / rate, image), number in cuts)
        if fades.is_active(FadingFace(BOX)):
            found.append(number)
    return found


def begins(images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[int]:
    """Return the frames at which a face with these boxes begins to fade."""
    fades, before, found = CrossFades(MAX_S), FadingFace(boxes[0]), []
    for number, (image, box) in enumerate(zip(images, boxes, strict=True)):
        face = FadingFace(box)
        fades.add(Frame(number, number / 25, image), False)
        if fades.begins(face, before):
            found.append(number)
        before = face
    return found


@pytest.mark.parametrize("length", [2, 3, 4, 6, 8, 12, 16])
def test_a_fade_is_found_while_it_lasts(length: int) -> None:
    images = faded(length)
    found = active(images)
    assert 13 <= found[0] < 13 + length
    assert found[-1] < 13 + length + 12
    assert begins(images, [BOX] * len(images)) == found[:1]


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6, 7])
def test_a_person_who_moves_and_a_light_that_changes_are_no_fade(seed: int) -> None:
    images = person(seed, 40)
    assert active(images) == []
    assert active([(image * (0.3 + number / 60)).astype(np.uint8) for number, image in enumerate(images)]) == []
    walk = [np.roll(image, 2 * number, axis=1) for number, image in enumerate(images[:25])]
    assert begins(walk, [BOX + np.float32([2 * number, 0, 0, 0]) for number in range(len(walk))]) == []
    assert active([image for image in images for _ in range(2)]) == []


def test_a_sudden_change_is_no_fade() -> None:
    assert active([*person(2, 20), *person(7, 20)]) == []


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_a_change_of_a_part_of_the_face_is_no_fade(share: float) -> None:
    """The lower part of the box fades, as around a mouth that opens."""
    images, other, (x, y, width, height) = person(2, 34), faded(8), BOX.astype(int)
    part = slice(y + round(height * (1 - share)), y + height), slice(x, x + width)
    for image, changed in zip(images, other, strict=True):
        image[part] = changed[part]
    assert active(images) == []


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_a_change_in_two_unequal_steps_is_no_fade(share: float) -> None:
    shares = [0.0] * 13 + [share] + [1.0] * 20
    pictures = zip(person(2, 34), person(7, 34), shares, strict=True)
    assert active([cv2.addWeighted(a, 1 - share, b, share, 0) for a, b, share in pictures]) == []


def test_a_fade_does_not_reach_across_a_cut_a_lost_frame_or_another_size() -> None:
    images: list[np.ndarray | None] = list(faded(8))
    assert active(images)
    assert active(images, cuts=range(13, 22)) == []
    assert active([None if 13 <= number < 22 else image for number, image in enumerate(images)]) == []
    other = [image if number % 2 else image[:-2] for number, image in enumerate(faded(8))]
    assert active(other) == []


def test_frames_of_half_the_time_decide() -> None:
    images = faded(8)
    assert active(images, rate=4.0)  # three frames within half a second
    assert active(images, rate=3.9) == []
    later = active(images[8:])  # as in a segment that begins there
    assert [number for number in active(images) if number >= 8 + 13] == [8 + each for each in later if each >= 13]


def test_frames_without_a_time_are_at_an_assumed_rate_from_others() -> None:
    fades, found = CrossFades(MAX_S), []
    for number, image in enumerate(images := faded(8)):
        fades.add(Frame(number, 1000 + number / 25 if number % 3 else None, image), False)
        if fades.is_active(FadingFace(BOX)):
            found.append(number)
    assert found == active(images)


def test_a_box_outside_of_the_frame() -> None:
    fades = CrossFades(MAX_S)
    for number, image in enumerate(person(0, 20)):
        fades.add(Frame(number, number / 25, image), False)
        for box in ([-500, -500, 9, 9], [9000, 10, 60, 60], [150, 150, 0, 0], [-9, -9, 900, 900]):
            assert not fades.is_active(FadingFace(np.array(box, np.float32)))
    assert not CrossFades(MAX_S).is_active(FadingFace(BOX))


@pytest.mark.parametrize("shape", [(2, 3000), (3000, 1), (1, 640), (1, 1)])
def test_frames_may_be_very_flat_or_tall(shape: tuple[int, int]) -> None:
    assert active([np.full((*shape, 3), 9 * number, np.uint8) for number in range(26)]) == []
