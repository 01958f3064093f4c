import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe import facs
from aupipe.data import sampler

pytestmark = pytest.mark.unit


def groups_of(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.sort(rng.integers(0, max(n // 7, 1), n))


@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 3), st.integers(1, 6))
def test_epoch_contains_every_row_once_in_a_reproducible_order(n: int, seed: int, epoch: int, window: int) -> None:
    groups = groups_of(np.random.default_rng(n), n)
    order = sampler.epoch_order(groups, seed=seed, epoch=epoch, window=window)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, sampler.epoch_order(groups, seed=seed, epoch=epoch, window=window))


def test_seed_and_epoch_change_the_order() -> None:
    groups = np.repeat(np.arange(10), 20)
    orders = [sampler.epoch_order(groups, seed=s, epoch=e, window=3) for s in (0, 1) for e in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_reader_needs_one_window_of_groups_at_a_time() -> None:
    groups = np.repeat(np.arange(20), 16)
    order = sampler.epoch_order(groups, seed=0, epoch=0, window=4)
    windows = groups[order].reshape(5, 4 * 16)
    assert [len(set(window)) for window in windows.tolist()] == [4] * 5
    first = windows[0]
    assert len(set(first[:16].tolist())) > 1  # the groups of a window are mixed
    assert set(first.tolist()) != {0, 1, 2, 3}  # and windows are not just runs of the file


def test_ranks_share_the_global_batch_whatever_their_number() -> None:
    order = sampler.epoch_order(np.repeat(np.arange(9), 11), seed=1, epoch=2, window=2)
    for step in range(sampler.steps(len(order), 12)):
        alone = sampler.rank_rows(order, step=step, batch=12, rank=0, world=1)
        for world in (2, 3, 4, 5):
            parts = [sampler.rank_rows(order, step=step, batch=12, rank=r, world=world) for r in range(world)]
            assert np.array_equal(np.concatenate(parts), alone)
            assert [len(part) for part in parts] == [
                sampler.local_batch_size(12, rank=r, world=world) for r in range(world)
            ]
            assert {len(part) for part in parts} == {12 // world, -(-12 // world)}
    assert sampler.steps(99, 12) == 8
    assert sampler.steps(5, 12) == 0


def test_every_nth_uses_frame_numbers() -> None:
    frames = np.array([1, 2, 3, 6, 7, 8, 11, 13])
    assert frames[sampler.every_nth(frames, 5)].tolist() == [1, 6, 11]
    assert sampler.every_nth(frames, 1).all()


def test_seeds_do_not_depend_on_the_process() -> None:
    assert sampler.seed_of(0, "order", 1) == 125578804223736978
    assert sampler.seed_of(0, "order", 1) != sampler.seed_of(0, "order", 2)


tracks = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(tracks, st.integers(0, 99))
def test_resampling_is_the_formula(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1, 0, 1], (sum(lengths), 12), p=[0.1, 0.8, 0.1]).astype(np.int8)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    kept = iter(sampler.every_nth_and_rare(edges, labels, 10, 5))
    for row, i in enumerate(i for length in lengths for i in range(1, length + 1)):
        rare = 1 in [labels[row, facs.AUS.index(au)] for au in ("AU02", "AU15", "AU23", "AU24", "AU26")]
        assert next(kept) == (i % 10 == 1 or (rare and i % 5 == 1))


def test_subset_contains_more_of_rare_aus_than_its_share() -> None:
    rng = np.random.default_rng(0)
    positives = rng.poisson(256 * np.geomspace(0.6, 0.03, 12), (200, 12)) * (rng.random((200, 12)) < 0.3)
    chosen = sampler.balanced_subset(positives, 0.2)
    assert len(chosen) == len(set(chosen.tolist())) == 40
    share = positives[chosen].sum(axis=0) / positives.sum(axis=0)
    assert share[-2:].min() > 0.35
    assert np.array_equal(chosen, sampler.balanced_subset(positives, 0.2))
    assert sampler.balanced_subset(np.zeros((5, 12), int), 1.0).tolist() == [0, 1, 2, 3, 4]
    assert len(sampler.balanced_subset(positives, 0.0)) == 1


@given(st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_the_rarest_au_so_far_takes_the_clip_with_most_of_it(count: int, fraction: float, seed: int) -> None:
    positives = np.random.default_rng(seed).poisson(np.geomspace(3, 0.03, 12), (count, 12))
    free, counts = list(range(count)), np.zeros(12, int)
    for _ in range(max(round(fraction * count), 1)):
        aus = [au for au in range(12) if positives[free, au].any()] or [0]
        au = min(aus, key=lambda au: counts[au])
        clip = max(free, key=lambda clip: positives[clip, au])
        free.remove(clip)
        counts += positives[clip]
    assert sampler.balanced_subset(positives, fraction).tolist() == sorted(set(range(count)) - set(free))


def test_the_time_of_a_subset_grows_with_the_number_of_clips() -> None:
    positives = np.random.default_rng(0).poisson(np.geomspace(0.6, 0.03, 12), (20_000, 12))
    start = time.process_time()
    assert len(sampler.balanced_subset(positives, 0.5)) == 10_000
    assert time.process_time() - start < 3  # 0.4 s; a search of all clips for each one took 6 s


def test_a_uniform_subset_takes_every_clip_equally_often() -> None:
    chosen = [sampler.uniform_subset(50, 0.2, seed=seed) for seed in range(400)]
    assert all(len(set(each.tolist())) == 10 and (np.diff(each) > 0).all() for each in chosen)
    counts = np.bincount(np.concatenate(chosen), minlength=50)
    assert counts.min() > 40
    assert counts.max() < 120
    assert len(sampler.uniform_subset(50, 0.0, seed=0)) == 1


def test_tracks_end_where_a_column_changes() -> None:
    video, person = np.array(list("aaabb"), dtype=object), np.array(list("lrrrr"), dtype=object)
    assert sampler.track_edges(video, person).tolist() == [0, 1, 3, 5]
    assert sampler.track_edges(video[:0]).tolist() == [0]
    assert sampler.track_edges(video[:1]).tolist() == [0, 1]
    assert sampler.track_edges(video, frames=np.array([1, 2, 2, 1, 5])).tolist() == [0, 2, 3, 5]


def test_tasks_alternate_by_pass_or_by_batch() -> None:
    steps = {"expr": 2, "au": 3}
    passes = sampler.task_schedule(steps, "epoch", epoch=1)
    assert passes == [("expr", 1, 0), ("expr", 1, 1), ("au", 1, 0), ("au", 1, 1), ("au", 1, 2)]
    batches = [sampler.task_schedule(steps, "batch", epoch=epoch) for epoch in (0, 1)]
    assert [task for task, _, _ in batches[0]] == ["expr", "au"] * 3
    assert [turn[1:] for epoch in batches for turn in epoch if turn[0] == "au"] == [
        (e, s) for e in (0, 1) for s in range(3)
    ]
    # The shorter task goes on where the epoch before left it, with new passes through its data, not the same one again.
    expr = [turn[1:] for epoch in batches for turn in epoch if turn[0] == "expr"]
    assert expr == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_rows_of_a_window_keep_the_order_of_one_shuffle() -> None:
    """Only a stable sort gives the same order on every machine, which a resumed run needs."""
    groups = np.repeat(np.arange(24), 50)
    options = {"seed": 3, "epoch": 1}
    shuffled = sampler.epoch_order(groups, window=24, **options)
    place = np.argsort(shuffled)
    order = sampler.epoch_order(groups, window=4, **options)
    for window in np.split(order, 6):
        assert len(np.unique(groups[window])) == 4
        assert (np.diff(place[window]) > 0).all()
