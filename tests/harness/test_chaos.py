"""An annotation in which one node is killed; `bench.py chaos` kills 50 random processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import chaos

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def check(kills: int, kinds: tuple[str, ...], checkpoint: str, archive: Path) -> None:
    *runs, totals = chaos.measure(archive, checkpoint, kills, seed=1, kinds=kinds)
    assert totals["kills"] >= kills
    assert totals["runs_equal"] == len(runs)
    assert (totals["rows_lost"], totals["rows_twice"], totals["redone_beyond"]) == (0, 0, 0)
    assert totals["wrongly_quarantined"] == 0
    assert all(run["segments"] == 2 * len(list(archive.iterdir())) for run in runs)


def test_tables_are_equal_after_a_node_was_killed(checkpoint: str, tmp_path: Path) -> None:
    check(1, ("raylet",), checkpoint, chaos.write_archive(tmp_path / "archive", clips=3, seconds=2))


@pytest.mark.timeout(3600)
def test_tables_are_equal_after_twelve_kills(checkpoint: str, tmp_path: Path) -> None:
    check(12, chaos.KINDS, checkpoint, chaos.write_archive(tmp_path / "archive", clips=6, seconds=2))
