import numpy as np
import pytest

from aupipe.facestore import gaps

pytestmark = pytest.mark.unit


def test_bridged_gaps_are_interpolated_and_others_are_nan():
    frames, values = np.array([2, 4, 7]), np.array([[0.0, 5.0], [1.0, 3.0], [4.0, 0.0]])
    found = gaps.interpolate(np.arange(1, 9), frames, values, np.array([True, False]))
    assert found[1:4].tolist() == [[0, 5], [0.5, 4], [1, 3]]
    assert found[6].tolist() == [4, 0]
    assert np.isnan(found[[0, 4, 5, 7]]).all()
    assert not np.isnan(gaps.interpolate(np.arange(2, 8), frames, values, np.array([True, True]))).any()
    assert gaps.interpolate(np.array([3]), frames[:1], values[:1], np.array([], bool)).shape == (1, 2)
