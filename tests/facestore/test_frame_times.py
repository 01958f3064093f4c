import numpy as np
import pytest

from aupipe.facestore.frame_times import frame_rate_hz, frame_times_s

pytestmark = pytest.mark.unit


def test_times_are_media_time_or_follow_from_the_rate_in_the_name():
    frames = np.array([1, 51])
    assert frame_times_s("7-25-640x480", frames, None).tolist() == [1 / 25, 51 / 25]
    assert frame_times_s("7", frames, np.array([0.0, np.nan])).tolist() == [1 / 30, 51 / 30]
    assert frame_times_s("7", frames, np.array([3.0, 9.0])).tolist() == [3, 9]


def test_rate_is_read_from_the_name():
    names = ["101-25-1080x1920", "101-25-1080x1920_left", "video12", "105", "1-30-1280x720_x"]
    assert [frame_rate_hz(name) for name in names] == [25, 25, 30, 30, 30]


def test_rate_is_read_from_the_names_of_parts_of_a_video():
    names = ["5-60-1920x1080-3", "28-30-1280x720-2", "122-60-1920x1080-1_left", "24-25-640x480-1_x"]
    assert [frame_rate_hz(name) for name in names] == [60, 30, 60, 30]
