"""Box mean: against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.evaluation.smoothing import box_mean, smooth_track
from harness.sizes import sizes

pytestmark = pytest.mark.unit


@given(st.integers(1, 30), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_it_is_the_mean_of_the_valid_neighbors(length: int, radius: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, valid = rng.random((length, 3)), rng.random(length) < 0.7
    values[~valid] = np.nan
    got = box_mean(values, valid, radius)
    for i in range(length):
        if not valid[i]:
            assert np.isnan(got[i]).all()
            continue
        near = [j for j in range(max(0, i - radius), min(length, i + radius + 1)) if valid[j]]
        np.testing.assert_allclose(got[i], values[near].mean(axis=0), atol=1e-12)


def test_radius_zero_is_the_identity_and_a_negative_one_is_refused() -> None:
    values = np.random.default_rng(0).random((5, 2))
    np.testing.assert_array_equal(box_mean(values, np.ones(5, bool), 0), values)
    with pytest.raises(ValueError, match="negative"):
        box_mean(values, np.ones(5, bool), -1)


def test_distant_values_do_not_change_the_last_bits() -> None:
    values = np.random.default_rng(0).random((200, 2))
    whole = box_mean(values, np.ones(200, bool), 5)
    np.testing.assert_array_equal(whole[100:110], box_mean(values[90:120], np.ones(30, bool), 5)[10:20])


@pytest.mark.parametrize("count", sizes(5))
def test_tracks_shorter_and_longer_than_the_window(count: int) -> None:
    values = np.arange(2.0 * count).reshape(count, 2)
    smoothed = smooth_track(np.arange(count), np.arange(count) / 25, values, 2)
    assert smoothed.shape == (count, 2)
    np.testing.assert_allclose(smoothed[2:-2], values[2:-2])  # a line stays a line inside


@pytest.mark.parametrize(("gap_s", "smoothed"), [(0.1, [0, 1 / 3, 8 / 3, 3]), (2.0, [0, 1 / 3, 8 / 3, 3]),
                                                 (2.001, [0, 0, 3, 3])])  # fmt: skip
def test_a_track_is_smoothed_across_short_gaps_only(gap_s: float, smoothed: list[float]) -> None:
    frames, times = np.array([3, 4, 7, 8]), np.cumsum([1, 1, gap_s, 1])
    values = np.array([0.0, 0.0, 3.0, 3.0])[:, None]  # on the line 0, 1, 2, 3 in the gap
    np.testing.assert_allclose(smooth_track(frames, times, values, 1)[:, 0], smoothed)
    np.testing.assert_array_equal(smooth_track(frames, times, values, 0), values)
