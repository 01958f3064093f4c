import numpy as np
import pytest

from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import NO_FACES, Detections
from aupipe.faces.template import YUNET_POINTS_ON_ARCFACE, detected_points, distance, template_of

pytestmark = pytest.mark.unit

CROP = np.zeros((112, 112, 3), np.uint8)


class FixedDetector:
    """A detector that returns fixed points (5, 2), given in crop pixels, on a crop enlarged twice."""

    def __init__(self, points):
        self.points = (np.asarray(points, np.float32) + 0.5) * 2 - 0.5

    def detect(self, image):
        assert image.shape == (224, 224, 3)
        box = np.array([[0, 0, 224, 224]], np.float32)
        return Detections(box, self.points[None].astype(np.float32), np.ones(1, np.float32))


class EmptyDetector:
    """A detector that finds no face."""

    def detect(self, image):
        return NO_FACES


def test_points_are_in_pixels_of_the_crop():
    points = np.arange(10).reshape(5, 2) + 20
    assert detected_points([CROP], FixedDetector(points))[0] == pytest.approx(points)


def test_own_crops_have_the_arcface_template():
    template = template_of([CROP] * 20, FixedDetector(YUNET_POINTS_ON_ARCFACE + 0.8))
    assert (template.source, template.faces) == ("arcface", 20)
    assert (template.points == ARCFACE_TEMPLATE).all()


def test_another_template_is_measured_without_the_bias_of_the_detector():
    other = (ARCFACE_TEMPLATE - 56) * 0.8 + 60
    template = template_of([CROP] * 20, FixedDetector(YUNET_POINTS_ON_ARCFACE + other - ARCFACE_TEMPLATE))
    assert template.source == "measured"
    assert distance(template.points, other) < 0.02


def test_without_faces_arcface_is_assumed():
    template = template_of([CROP] * 20, EmptyDetector())
    assert (template.source, template.faces) == ("assumed", 0)
