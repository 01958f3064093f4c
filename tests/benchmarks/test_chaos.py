"""A node is killed in the middle, for a start; `bench.py chaos` kills whatever there is, fifty times."""

from __future__ import annotations

from pathlib import Path

import pytest

from aupipe.benchmarks import chaos

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def check(kills: int, kinds: tuple[str, ...], checkpoint: str, archive: Path) -> None:
    *runs, tally = chaos.measure(archive, checkpoint, kills, seed=1, kinds=kinds)
    assert tally["kills"] >= kills
    assert tally["runs_equal"] == len(runs)
    assert (tally["rows_lost"], tally["rows_twice"], tally["redone_beyond"]) == (0, 0, 0)
    assert all(run["segments"] == 2 * len(list(archive.iterdir())) for run in runs)


def test_the_tables_do_not_show_what_was_killed(checkpoint: str, tmp_path: Path) -> None:
    check(1, ("raylet",), checkpoint, chaos.write_archive(tmp_path / "archive", clips=3, seconds=2))


@pytest.mark.timeout(3600)
def test_the_tables_do_not_show_what_was_killed_more_often(checkpoint: str, tmp_path: Path) -> None:
    check(12, chaos.KINDS, checkpoint, chaos.write_archive(tmp_path / "archive", clips=6, seconds=2))
