"""`bench.py preprocess`: figures of a small run."""

from __future__ import annotations

import pytest

from harness import preprocess

pytestmark = [pytest.mark.cluster, pytest.mark.slow]  # tests/pipelines/test_preprocess.py is its short case


def test_figures_of_a_small_run() -> None:
    figures = preprocess.measure(4000)
    assert figures["crops"] == 4000
    assert figures["crops_per_s"] > 100
    assert 100 < figures["peak_mb"] < 8000
