"""Detection: faces are found at their positions in pictures of every size, and as OpenCV finds them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from aupipe.errors import ConfigError
from aupipe.faces import yunet_graph
from aupipe.faces.detect import Detections, Detector, DetectorConfig, _decode, suppress, weights_path
from aupipe.faces.shot_boundaries import is_cut, thumbnail
from harness.clips import BACKGROUND, draw_face

pytestmark = pytest.mark.unit


PUBLISHED = Path(weights_path(DetectorConfig()))


def picture(width: int, height: int, faces: list[tuple[int, int, int]]) -> np.ndarray:
    """Return noise (height, width, 3) with faces, each with left, top and side."""
    noise = np.random.default_rng(0).integers(90, 150, (height, width, 3), np.uint8)
    image = cv2.GaussianBlur(noise, (5, 5), 2)
    for left, top, side in faces:
        image[top : top + side, left : left + side] = draw_face(side)
    return image


@pytest.mark.parametrize(
    ("width", "height", "faces"),
    [
        (640, 360, [(200, 60, 240)]),  # padded at one side
        (320, 320, [(40, 60, 200)]),  # no padding
        (333, 201, [(20, 20, 160), (200, 90, 90)]),
        (1400, 700, [(100, 100, 400), (800, 200, 300)]),  # reduced
        (97, 65, [(10, 0, 64)]),
    ],
)
def test_detections_equal_those_of_opencv(width: int, height: int, faces: list[tuple[int, int, int]]) -> None:
    image = picture(width, height, faces)
    found = Detector(DetectorConfig()).detect(image)
    assert len(found) == len(faces)
    scale = min(1.0, 640 / max(width, height))
    small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    reference = cv2.FaceDetectorYN.create(str(PUBLISHED), "", small.shape[1::-1], 0.6, 0.3, 5000)
    expected = reference.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
    np.testing.assert_allclose(found.boxes, expected[:, :4] / scale, atol=1e-2)
    np.testing.assert_allclose(found.landmarks.reshape(-1, 10), expected[:, 4:14] / scale, atol=1e-2)
    np.testing.assert_allclose(found.scores, expected[:, 14], atol=1e-5)
    assert {found.boxes.dtype, found.landmarks.dtype, found.scores.dtype} == {np.dtype(np.float32)}


def test_a_narrow_picture_of_noise_has_no_face() -> None:
    """OpenCV reads uninitialized memory in a picture of this size, and sometimes finds a face in it."""
    assert len(Detector(DetectorConfig()).detect(picture(20, 500, []))) == 0


def test_conversion_is_deterministic_and_refuses_other_files() -> None:
    converted = yunet_graph.convert(PUBLISHED.read_bytes())
    assert yunet_graph.convert(PUBLISHED.read_bytes()) == converted
    with pytest.raises(ConfigError, match="not YuNet's graph"):
        yunet_graph.convert(converted)
    with pytest.raises(ConfigError, match="no ONNX file"):
        yunet_graph.convert(b"no model")


def test_values_of_a_decoded_candidate() -> None:
    """The anchor at column 3, row 2 of the grid of 16 px; the second candidate has infinite sides."""
    boxes = np.float32([[0.5, 0.25, np.log(4), np.log(2)], [0, 0, 1000, 0]])
    points = np.float32([[0, 0, 1, 0, 0.5, 0.5, 0, 1, 1, 1]] * 2)
    found = _decode(np.float32([0.7, 0.9]), boxes, points, np.float32([[48, 32, 16]] * 2))
    np.testing.assert_allclose(found.boxes, [[48 + 8 - 32, 32 + 4 - 16, 64, 32]], atol=1e-4)
    np.testing.assert_allclose(found.landmarks, [[[48, 32], [64, 32], [56, 40], [48, 48], [64, 48]]], atol=1e-4)
    assert found.scores.tolist() == pytest.approx([0.7])


def test_equal_scores_are_ordered_by_place() -> None:
    """Left ones first, then upper ones, so that the order of a network's outputs has no effect."""
    anchors = np.float32([[48, 32, 16], [16, 32, 16], [48, 16, 16]])
    found = _decode(np.full(3, 0.7, np.float32), np.zeros((3, 4), np.float32), np.zeros((3, 10), np.float32), anchors)
    assert (found.boxes[:, :2] + 8).tolist() == [[16, 32], [48, 16], [48, 32]]


def test_faces_in_a_frame_of_another_shape() -> None:
    one = Detections(np.float32([[10, 20, 30, 40]]), np.full((1, 5, 2), 10, np.float32), np.float32([0.9]))
    found = one.scaled((100, 50), (200, 200))
    assert found.boxes.tolist() == [[20, 80, 60, 160]]
    assert found.landmarks.tolist() == [[[20, 40]] * 5]


def test_a_face_is_too_small_by_its_shorter_side() -> None:
    config = DetectorConfig(min_face_px=24)
    for sides, small in (((24, 24), False), ((23.5, 40), True), ((40, 23.5), True)):
        assert config.is_too_small(np.float32([5, 5, *sides])) is small


def test_a_region_contains_its_face_whatever_its_shape() -> None:
    image = np.zeros((600, 600, 3), np.uint8)
    for box in ([200, 150, 100, 300], [150, 200, 300, 100]):
        region = Detector(DetectorConfig()).region(image, np.float32(box))
        assert region.side >= 1.6 * 300
        assert region.holds(np.float32(box))


def test_a_face_beside_the_known_one_is_not_taken_for_it() -> None:
    image, detector = picture(300, 200, [(20, 40, 90)]), Detector(DetectorConfig())
    (box,) = detector.detect(image).boxes
    region = detector.region(image, box)
    assert len(detector.detect_near(image, box, region)) == 1
    assert len(detector.detect_near(image, box + np.float32([70, 0, 0, 0]), region)) == 0


@pytest.mark.parametrize(("width", "height", "most"), [(640, 360, 14), (1280, 720, 14), (320, 180, 3)])
def test_regions_are_compared_with_the_frame_as_the_network_sees_it(width: int, height: int, most: int) -> None:
    image, detector = np.zeros((height, width, 3), np.uint8), Detector(DetectorConfig())
    assert [detector.whole_costs_less(image, count) for count in (most, most + 1)] == [False, True]


def test_only_the_best_of_overlapping_candidates_is_kept() -> None:
    """The second overlaps the first by 0.5; the third overlaps only the second, which is gone; the fourth is apart."""
    boxes = np.float32([[0, 0, 90, 10], [30, 0, 90, 10], [61, 0, 90, 10], [300, 0, 5, 5]])
    candidates = Detections(boxes, np.zeros((4, 5, 2), np.float32), np.float32([0.9, 0.8, 0.7, 0.6]))
    assert suppress(candidates, 0.3).scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert suppress(candidates, 0.5).scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])


@pytest.mark.parametrize("size", [120, 400, 1500])
def test_a_face_is_found_at_its_position(size: int) -> None:
    picture = np.pad(draw_face(200), ((100, 100), (100, 100), (0, 0)), constant_values=BACKGROUND)
    found = Detector(DetectorConfig()).detect(cv2.resize(picture, (size, size)))
    assert len(found) == 1
    assert found.landmarks[0, 0, 0] < found.landmarks[0, 1, 0]  # the eye with the smaller x comes first
    np.testing.assert_allclose(found.landmarks[0, :2].mean(axis=0) / size, [0.5, 0.48], atol=0.02)
    np.testing.assert_allclose(found.landmarks[0, 3:].mean(axis=0) / size, [0.5, 0.595], atol=0.02)


def test_faces_are_sorted_by_score_and_an_empty_picture_has_none() -> None:
    detector = Detector(DetectorConfig())
    picture = np.full((200, 420, 3), 120, np.uint8)
    assert len(detector.detect(picture)) == 0
    picture[20:180, 20:180] = draw_face(160)
    picture[60:140, 300:380] = draw_face(80)
    found = detector.detect(picture)
    assert len(found) == 2
    assert found.scores[0] >= found.scores[1]


def test_weights_are_checked(tmp_path: Path) -> None:
    assert Path(weights_path(DetectorConfig())).is_file()
    with pytest.raises(ConfigError, match="no such file"):
        Detector(DetectorConfig(weights=str(tmp_path / "gone.onnx")))
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"not a network")
    with pytest.raises(ConfigError, match=r"wrong\.onnx: no ONNX file"):
        Detector(DetectorConfig(weights=str(wrong)))


def test_a_cut_is_a_change_of_content_not_of_brightness() -> None:
    rng = np.random.default_rng(0)
    first, second = (cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (320, 240)) for _ in range(2))
    assert is_cut(thumbnail(first), thumbnail(second))
    assert not is_cut(thumbnail(first), thumbnail(np.roll(first, 6, axis=1)))
    assert not is_cut(thumbnail(first), thumbnail((first * 0.6 + 40).astype(np.uint8)))
    black = np.zeros_like(first)
    assert not is_cut(thumbnail(black), thumbnail(black + 3))
