"""The work list: waves are bounded, and what a phase leaves stays visible."""

from __future__ import annotations

import pytest

from aupipe.annotation.work_plan import WorkList

pytestmark = pytest.mark.unit


def test_waves_are_bounded_and_together_whole() -> None:
    frames = {"a": 400, "b": 400, "c": 5000, "d": 300, "e": 300, "f": 300}
    work = WorkList(extract={key: ({"video_id": key, "frames_expected": n}, []) for key, n in frames.items()})
    waves = work.disk_bounded_batches(1000 * 200, embed_dim=25)  # 200 bytes a frame
    assert [list(wave) for wave in waves] == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert WorkList().disk_bounded_batches(1000, embed_dim=25) == []


def test_what_is_postponed_or_set_aside_is_nowhere_else() -> None:
    work = WorkList(extract={key: ({"video_id": key}, []) for key in "abc"})
    work.quarantine({"a": "timed_out: it hangs"})
    work.postpone(["b"])
    assert (list(work.extract), work.pending, work.quarantined["a"]["status"]) == (["c"], {"b"}, "quarantined")
