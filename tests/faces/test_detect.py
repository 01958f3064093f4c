"""Detection: a face is found at its position for every size of the picture, and the weights are verified."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from aupipe.errors import ConfigError
from aupipe.faces.detect import Detector, DetectorConfig, weights_path
from aupipe.faces.shot_boundaries import is_cut, thumbnail
from harness.clips import BACKGROUND, draw_face

pytestmark = pytest.mark.unit


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
    with pytest.raises(ConfigError, match=r"wrong\.onnx"):
        Detector(DetectorConfig(weights=str(wrong)))


def test_a_cut_is_a_change_of_content_not_of_brightness() -> None:
    rng = np.random.default_rng(0)
    first, second = (cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (320, 240)) for _ in range(2))
    assert is_cut(thumbnail(first), thumbnail(second))
    assert not is_cut(thumbnail(first), thumbnail(np.roll(first, 6, axis=1)))
    assert not is_cut(thumbnail(first), thumbnail((first * 0.6 + 40).astype(np.uint8)))
    black = np.zeros_like(first)
    assert not is_cut(thumbnail(black), thumbnail(black + 3))
