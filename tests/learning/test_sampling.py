import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.learning import sampling

pytestmark = pytest.mark.unit


def groups_of(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.sort(rng.integers(0, max(n // 7, 1), n))


@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 3), st.integers(1, 6))
def test_epoch_takes_every_row_once_and_the_same_way_again(n: int, seed: int, epoch: int, window: int) -> None:
    groups = groups_of(np.random.default_rng(n), n)
    order = sampling.epoch_order(groups, seed=seed, epoch=epoch, window=window)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, sampling.epoch_order(groups, seed=seed, epoch=epoch, window=window))


def test_seed_and_epoch_change_the_order() -> None:
    groups = np.repeat(np.arange(10), 20)
    orders = [sampling.epoch_order(groups, seed=s, epoch=e, window=3) for s in (0, 1) for e in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_reader_needs_one_window_of_groups_at_a_time() -> None:
    groups = np.repeat(np.arange(20), 16)
    order = sampling.epoch_order(groups, seed=0, epoch=0, window=4)
    windows = groups[order].reshape(5, 4 * 16)
    assert [len(set(window)) for window in windows.tolist()] == [4] * 5
    first = windows[0]
    assert len(set(first[:16].tolist())) > 1  # the groups of a window are mixed
    assert set(first.tolist()) != {0, 1, 2, 3}  # and windows are not just runs of the file


def test_ranks_share_the_global_batch_whatever_their_number() -> None:
    order = sampling.epoch_order(np.repeat(np.arange(9), 11), seed=1, epoch=2, window=2)
    for step in range(sampling.steps(len(order), 12)):
        alone = sampling.rank_rows(order, step=step, batch=12, rank=0, world=1)
        for world in (2, 3, 4):
            parts = [sampling.rank_rows(order, step=step, batch=12, rank=r, world=world) for r in range(world)]
            assert np.array_equal(np.concatenate(parts), alone)
            assert {len(part) for part in parts} == {12 // world}
    assert sampling.steps(99, 12) == 8
    assert sampling.steps(5, 12) == 0


def test_held_out_videos_are_a_fixed_share() -> None:
    videos = [f"video{i}" for i in range(40)]
    apart = sampling.held_out(videos, 0.1)
    assert len(apart) == 4
    assert apart == sampling.held_out(reversed(videos * 3), 0.1)
    assert sampling.held_out(["a", "b"], 0.1) in ({"a"}, {"b"})
    assert sampling.held_out(["a"], 0.1) == frozenset()
    assert sampling.held_out(videos, 0) == frozenset()
    assert len(sampling.held_out(["a", "b"], 0.99)) == 1


def test_every_nth_goes_by_real_frame_numbers() -> None:
    frames = np.array([1, 2, 3, 6, 7, 8, 11, 13])
    assert frames[sampling.every_nth(frames, 5)].tolist() == [1, 6, 11]
    assert sampling.every_nth(frames, 1).all()


def test_seeds_do_not_depend_on_the_process() -> None:
    assert sampling.seed_of(0, "order", 1) == 125578804223736978
    assert sampling.seed_of(0, "order", 1) != sampling.seed_of(0, "order", 2)
