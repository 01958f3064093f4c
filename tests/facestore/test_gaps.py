import numpy as np
import pytest

from aupipe.facestore import gaps

pytestmark = pytest.mark.unit


def test_bridged_holes_are_straight_lines_and_others_nothing():
    frames, values = np.array([2, 4, 7]), np.array([[0.0, 5.0], [1.0, 3.0], [4.0, 0.0]])
    found = gaps.interpolate(np.arange(1, 9), frames, values, np.array([True, False]))
    assert found[1:4].tolist() == [[0, 5], [0.5, 4], [1, 3]]
    assert found[6].tolist() == [4, 0]
    assert np.isnan(found[[0, 4, 5, 7]]).all()
    assert not np.isnan(gaps.interpolate(np.arange(2, 8), frames, values, np.array([True, True]))).any()
    assert gaps.interpolate(np.array([3]), frames[:1], values[:1], np.array([], bool)).shape == (1, 2)


def test_seconds_are_media_time_or_the_rate_in_the_name():
    frames = np.array([1, 51])
    assert gaps.seconds("7-25-640x480", frames, None).tolist() == [1 / 25, 51 / 25]
    assert gaps.seconds("7", frames, np.array([0.0, np.nan])).tolist() == [1 / 30, 51 / 30]
    assert gaps.seconds("7", frames, np.array([3.0, 9.0])).tolist() == [3, 9]


def test_rate_is_read_from_the_name():
    names = ["101-25-1080x1920", "101-25-1080x1920_left", "video12", "105", "1-30-1280x720_x"]
    assert [gaps.frame_rate(name) for name in names] == [25, 25, 30, 30, 30]
