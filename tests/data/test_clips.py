import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.data import clips

pytestmark = pytest.mark.unit

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def tracks(sizes: list[int]) -> np.ndarray:
    """Their edges."""
    return np.concatenate([[0], np.cumsum(sizes)])


def of_one_track(found: clips.Clips, edges: np.ndarray) -> bool:
    return bool((np.diff(np.searchsorted(edges, found.rows, side="right"), axis=1) == 0).all())


@given(lengths, st.integers(1, 12))
def test_runs_contain_every_frame_once(sizes: list[int], size: int) -> None:
    edges = tracks(sizes)
    found = clips.runs(edges, size)
    assert np.array_equal(np.sort(found.rows[found.valid]), np.arange(sum(sizes)))
    assert of_one_track(found, edges)
    for rows, real in zip(found.rows, found.valid, strict=True):
        assert (np.diff(rows[real]) == 1).all()
        assert (rows[~real] == rows[real][-1]).all()  # padding repeats the last frame


def test_runs_pad() -> None:
    padded = clips.runs(np.array([0, 7]), 3)
    assert padded.rows.tolist() == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert padded.valid.tolist() == [[True] * 3, [True] * 3, [True, False, False]]


@given(lengths, st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_windows_are_the_formula(sizes: list[int], size: int, stride: int, epoch: int) -> None:
    edges = tracks(sizes)
    found = clips.windows(edges, size, stride=stride, seed=1, epoch=epoch)
    assert len(found) == len(clips.windows(edges, size, stride=stride, seed=1, epoch=epoch + 1))
    assert of_one_track(found, edges)
    for begin, length in zip(edges, sizes, strict=False):
        starts = found.rows[(found.rows[:, 0] >= begin) & (found.rows[:, 0] < begin + length), 0] - begin
        last = max(length - size, 0)
        assert starts[0] <= min(stride, last)
        assert starts.tolist() == [min(starts[0] + k * stride, last) for k in range(last // stride + 1)]
        clip = found.rows[found.rows[:, 0] == begin + starts[0]][0] - begin
        assert clip.tolist() == [min(starts[0] + i, length - 1) for i in range(size)]


def test_window_starts_differ_by_epoch_and_track() -> None:
    edges = tracks([90] * 8)
    firsts = [clips.windows(edges, 30, stride=10, seed=0, epoch=e).rows[:, 0].tolist() for e in (0, 1)]
    assert firsts[0] != firsts[1]
    assert len({(row % 90) % 10 for row in firsts[0]}) > 2
