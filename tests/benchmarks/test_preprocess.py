import pytest

from aupipe.benchmarks import preprocess

pytestmark = pytest.mark.cluster


def test_figures_of_a_small_run() -> None:
    figures = preprocess.measure(4000)
    assert figures["crops"] == 4000
    assert figures["crops_per_s"] > 100
    assert 100 < figures["peak_mb"] < 8000
