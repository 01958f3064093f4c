import os
import tempfile

import numpy as np
import pytest

from aupipe.benchmarks import processes

pytestmark = pytest.mark.unit

MB = 2**20


def _own_mb() -> float:
    return processes.memory_kb(os.getpid())["own"] / 1024


def test_own_memory_is_what_was_written_and_not_what_lies_in_shared_memory() -> None:
    before = _own_mb()
    array = np.ones(64 * MB, np.uint8)
    assert _own_mb() - before == pytest.approx(64, abs=4)
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(64 * MB)
        stored = np.memmap(file, np.uint8, "r+")
        stored[:] = 1
        assert _own_mb() - before == pytest.approx(64, abs=4)
        assert processes.memory_kb(os.getpid())["pss"] / 1024 > 128
        del stored
    del array
    assert _own_mb() - before < 4


def test_a_process_that_has_ended_has_nothing() -> None:
    assert processes.memory_kb(2**22 + 1) == {"pss": 0, "own": 0}
