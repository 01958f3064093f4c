"""The audit counts starts, segments in flight and restarts from the files of an output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from aupipe.storage import Storage
from harness.commit_audit import CommitAudit

pytestmark = pytest.mark.unit


def test_a_segment_in_flight_at_a_kill_may_restart_once(tmp_path: Path) -> None:
    audit, storage = CommitAudit(tmp_path), Storage(tmp_path)
    for name in ("attempts/probe-1", "attempts/v.a-1", "attempts/v.b-1", "observed/v.b-00000-last.parquet"):
        storage.write(f"_work/{name}", b"")
    assert audit.read()
    assert not audit.read()
    assert audit.record_kill() == 1  # segment a is in flight, segment b is committed
    storage.write("_work/attempts/v.a-2", b"")
    audit.read()
    assert (audit.restarts, audit.excess_restarts) == (1, 0)
    storage.write("_work/attempts/v.a-1", b"")
    storage.write("_work/attempts/v.b-1", b"")
    audit.read()
    assert (audit.restarts, audit.excess_restarts, audit.after_commit) == (3, 2, ["v.b"])
    audit.close()
