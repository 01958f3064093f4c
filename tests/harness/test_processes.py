"""Memory of a process: its own pages, without those in shared memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import processes

pytestmark = pytest.mark.unit

# A process of its own, without large libraries: the share of their pages in PSS changes as other processes come and go.
CHILD = """
import mmap, sys
for line in sys.stdin:
    memory = mmap.mmap(-1, 64 * 2**20, getattr(mmap, line.strip()) | mmap.MAP_ANONYMOUS)
    for page in range(0, len(memory), mmap.PAGESIZE):
        memory[page] = 1
    print("written", flush=True)
"""


@pytest.mark.parametrize(("flags", "own"), [("MAP_PRIVATE", 64), ("MAP_SHARED", 0)])
def test_own_memory_excludes_shared_memory(flags: str, own: int) -> None:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def written(flags: str) -> dict[str, float]:
            print(flags, file=child.stdin, flush=True)
            assert child.stdout is not None
            assert child.stdout.readline() == "written\n"
            return {kind: kb / 1024 for kind, kb in processes.memory_kb(child.pid).items()}

        before = written("MAP_PRIVATE")  # the interpreter has started; the next mapping takes the place of this one
        after = written(flags)
        child.stdin.close()
    # While the second mapping is made the first is still held, and is freed when the name is bound anew.
    assert after["own"] - before["own"] == pytest.approx(own - 64, abs=4)
    assert after["pss"] - before["pss"] == pytest.approx(0, abs=4)


def test_a_process_that_has_ended_has_no_memory() -> None:
    assert processes.memory_kb(2**22 + 1) == {"pss": 0, "own": 0}
