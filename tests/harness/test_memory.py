"""`bench.py memory`: peaks and growth of a short run."""

from __future__ import annotations

import pytest

from harness import memory

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_figures_of_a_short_run(checkpoint: str) -> None:
    short, long, growth = memory.measure(checkpoint, 8)
    assert set(short["peak_mb"]) >= {"Probe", "Extract", "Finalize"}
    assert min(short["peak_mb"].values()) > 50
    assert long["work_mb"] > short["work_mb"] > 0
    assert growth["largest_mb"] < 1500
    assert set(growth["growth"]) == set(short["peak_mb"])
    for kind in ("Extract", "Finalize"):
        assert long["peak_mb"][kind] - short["peak_mb"][kind] < 10 * 7  # MB for each further minute
