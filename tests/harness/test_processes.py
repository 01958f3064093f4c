"""Memory of a process: its own pages, without those in shared memory."""

from __future__ import annotations

import mmap
import os

import pytest

from harness import processes

pytestmark = pytest.mark.unit

MB = 2**20


def _mb(kind: str) -> float:
    return processes.memory_kb(os.getpid())[kind] / 1024


def _written_pages(flags: int) -> mmap.mmap:
    memory = mmap.mmap(-1, 64 * MB, flags | mmap.MAP_ANONYMOUS)
    for page in range(0, 64 * MB, mmap.PAGESIZE):
        memory[page] = 1
    return memory


def test_own_memory_excludes_shared_memory() -> None:
    own, pss = _mb("own"), _mb("pss")
    with _written_pages(mmap.MAP_PRIVATE):
        assert _mb("own") - own == pytest.approx(64, abs=4)
        assert _mb("pss") - pss == pytest.approx(64, abs=4)
    with _written_pages(mmap.MAP_SHARED):
        assert _mb("own") - own == pytest.approx(0, abs=4)
        assert _mb("pss") - pss == pytest.approx(64, abs=4)


def test_a_process_that_has_ended_has_no_memory() -> None:
    assert processes.memory_kb(2**22 + 1) == {"pss": 0, "own": 0}
