"""Values shared by threads, and reading ahead: order, errors, single loads, bounded memory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from aupipe.data.loaded import Loaded, read_ahead

pytestmark = pytest.mark.unit


def test_threads_that_need_a_value_load_it_once() -> None:
    loads: list[int] = []

    def load(key: int) -> int:
        loads.append(key)
        time.sleep(0.05)
        return key * key

    values = Loaded(load, 3)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(values, [3] * 8)) == [9] * 8
    values.prefetch([3, 4])
    assert values(4) == 16
    assert loads == [3, 4]


def test_the_values_used_last_stay() -> None:
    loads: list[int] = []
    values = Loaded(lambda key: loads.append(key) or key, 2)
    for key in (1, 2, 1, 3, 1, 2):
        assert values(key) == key
    assert loads == [1, 2, 3, 2]
    assert len(values) == 2


def test_a_failed_load_is_raised_and_tried_again() -> None:
    tries: list[int] = []

    def load(key: int) -> int:
        tries.append(key)
        if len(tries) < 3:
            raise OSError("busy")
        return key

    values = Loaded(load, 2)
    values.prefetch([5])
    deadline = time.monotonic() + 10
    while not tries or len(values):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(OSError, match="busy"):
        values(5)
    assert values(5) == 5


def test_results_come_in_order_and_no_more_than_allowed_are_read_ahead() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def read(number: int) -> int:
        with lock:
            started.append(number)
        time.sleep(0.02 if number % 3 == 0 else 0.001)
        return -number

    for taken, found in enumerate(read_ahead(read, range(30), threads=3, ahead=4)):
        assert found == -taken
        assert len(started) <= taken + 1 + 4
    assert sorted(started) == list(range(30))


def test_reading_ahead_overlaps_with_the_use() -> None:
    reading, used = threading.Event(), threading.Event()

    def read(number: int) -> int:
        if number == 1:
            reading.set()
            assert used.wait(10)  # so this read lasts until item 0 is used
        return number

    results = read_ahead(read, range(2), threads=1, ahead=1)
    assert next(results) == 0
    assert reading.wait(10)
    used.set()
    assert list(results) == [1]


def test_an_error_is_raised_at_its_item_and_reading_stops_with_the_consumer() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise ValueError("item 2")
        return number

    results = read_ahead(read, range(100), threads=2, ahead=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)
    before = threading.active_count()
    stopped = read_ahead(lambda number: number, iter(range(10**9)), threads=2, ahead=3)
    next(stopped)
    stopped.close()
    assert threading.active_count() == before
