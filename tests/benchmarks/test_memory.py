import pytest

from aupipe.benchmarks import memory

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_figures_of_a_short_run(checkpoint: str) -> None:
    short, long, said = memory.measure(checkpoint, 2)
    assert set(short["peak_mb"]) >= {"Probe", "Decode", "Encode", "Finalise"}
    assert min(short["peak_mb"].values()) > 50
    assert long["work_mb"] > short["work_mb"] > 0
    assert said["largest_mb"] < 1500
    assert set(said["growth"]) == set(short["peak_mb"])
    assert max(said["growth"].values()) < 0.2  # of 60 minutes it is at most 0.1; a minute's peaks are seldom all seen
