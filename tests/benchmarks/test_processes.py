import mmap
import os

import numpy as np
import pytest

from aupipe.benchmarks import processes

pytestmark = pytest.mark.unit

MB = 2**20


def _mb(kind: str) -> float:
    return processes.memory_kb(os.getpid())[kind] / 1024


def test_own_memory_is_what_was_written_and_not_what_lies_in_shared_memory() -> None:
    before = _mb("own")
    array = np.ones(64 * MB, np.uint8)
    assert _mb("own") - before == pytest.approx(64, abs=4)
    whole = _mb("pss")
    with mmap.mmap(-1, 64 * MB) as shared:
        for page in range(0, 64 * MB, mmap.PAGESIZE):
            shared[page] = 1
        assert _mb("own") - before == pytest.approx(64, abs=4)
        assert _mb("pss") - whole == pytest.approx(64, abs=4)
    del array
    assert _mb("own") - before < 4


def test_a_process_that_has_ended_has_nothing() -> None:
    assert processes.memory_kb(2**22 + 1) == {"pss": 0, "own": 0}
