"""What is begun, in flight and begun again is read off the files of an output."""

from __future__ import annotations

from pathlib import Path

import pytest

from aupipe.benchmarks.accounts import Accounts
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def test_work_in_flight_at_a_kill_may_be_begun_again_once(tmp_path: Path) -> None:
    accounts, storage = Accounts(tmp_path), Storage(tmp_path)
    for name in ("attempts/probe-1", "attempts/v.a-1", "attempts/v.b-1", "observed/v.b-00000-last.parquet"):
        storage.write(f"_work/{name}", b"")
    assert accounts.read()
    assert not accounts.read()
    assert accounts.kill() == 1  # a; b is committed
    storage.write("_work/attempts/v.a-2", b"")
    accounts.read()
    assert (accounts.redone, accounts.beyond) == (1, 0)
    storage.write("_work/attempts/v.a-1", b"")
    storage.write("_work/attempts/v.b-1", b"")
    accounts.read()
    assert (accounts.redone, accounts.beyond, accounts.after_commit) == (3, 2, ["v.b"])
    accounts.close()
