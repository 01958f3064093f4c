"""`bench.py annotate` and `bench.py all`: the figures of a short run, idle cores, and the picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.patches import Rectangle

from aupipe.errors import ConfigError
from harness import bench_all, throughput
from harness.throughput import longest_idle_s, work_start


@pytest.mark.unit
def test_an_idle_core_is_found_among_busy_ones() -> None:
    busy = [(0.1 * number, [0.0, 5.0]) for number in range(10)]
    assert longest_idle_s(busy) == 0.0
    second = [(time, [0.0, 5.0 + max(0.0, min(time, 0.6) - 0.2)]) for time, _ in busy]
    assert longest_idle_s(second) == pytest.approx(0.4)
    in_turn = [(time, [min(time, 0.5), max(0.0, time - 0.5)]) for time, _ in busy]
    assert longest_idle_s(in_turn) == pytest.approx(0.5)
    twice = [(0.0, [0.0]), (1.0, [1.0]), (2.0, [1.8]), (3.0, [2.8]), (4.0, [3.8])]
    assert longest_idle_s(twice) == pytest.approx(2.0)


@pytest.mark.unit
def test_work_begins_with_what_is_committed() -> None:
    def marks(text: str) -> list[tuple[float, bool]]:
        return [(number / 4, letter == "x") for number, letter in enumerate(text)]

    assert work_start(marks("..xxx.xx"), first_commit=2.0) == 0.5  # a short pause, as between two segments
    assert work_start(marks("..x.......xxx"), first_commit=3.0) == 2.5  # a packet that was left
    assert work_start(marks("..xx......xxx"), first_commit=1.0) == 0.5  # ... and one that was committed
    assert work_start(marks("..xx"), first_commit=math.inf) == 0.5  # It ended between two samples.
    assert work_start(marks("...."), first_commit=math.inf) is None


@pytest.mark.unit
@pytest.mark.parametrize(("minutes", "sizes", "repeats"), [(0.1, [1], 1), (1, [], 1), (1, [0], 1), (1, [1], 0)])
def test_wrong_arguments_are_refused(minutes: float, sizes: list[int], repeats: int) -> None:
    with pytest.raises(ConfigError, match="at least 2 cores"):
        throughput.measure(minutes, sizes, repeats)


@pytest.mark.unit
def test_all_lines_are_in_the_file_and_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = {f"{name}_{workers}": {"ratio": 0.9} for name in ("light", "heavy") for workers in (1, 2)}
    lines: dict[str, dict[str, Any]] = {
        "front": {"ms": {"decode": 1.0, "front": 4.0}}, "startup": {"s": {"help": 0.2}},
        "annotate": {"frames_per_s": {"decode": 2000.0, "annotate_2": 200.0}}, "train": ratios,
    }  # fmt: skip
    monkeypatch.setattr(bench_all, "MEASURES", {name: lambda line=line: line for name, line in lines.items()})
    (tmp_path / "bench.jsonl").write_text("an earlier call\n")
    expected = [{"bench": name, **line} for name, line in lines.items()]
    assert list(bench_all.measure(str(tmp_path))) == expected
    assert [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()] == expected
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    titles = [axes.get_title() for axes in bench_all.picture(lines).axes]
    assert titles[1] == "frames per second, two cores"
    bars = [bar.get_width() for bar in bench_all.picture(lines).axes[1].patches if isinstance(bar, Rectangle)]
    assert bars == [200.0, 2000.0]


@pytest.mark.cluster
@pytest.mark.slow
def test_figures_of_a_short_run() -> None:
    line = throughput.measure(1.0, [1, 2], 1)
    rates = line["frames_per_s"]
    assert line["frames"] == 1500
    assert rates["decode"] > rates["loop"] > 0
    assert rates["annotate_2"] > rates["annotate_1"] > 0
    assert line["decode_ratio"] == pytest.approx(rates["annotate_2"] / rates["decode"], abs=1e-3)
    assert line["loop_ratio"] == pytest.approx(rates["annotate_2"] / rates["loop"], abs=1e-3)
    assert line["size_cost"]["1"] == 1.0
    assert 0.5 < line["size_cost"]["2"] < 1.5
    assert line["startup_s"] > 0
    assert line["idle_core_s"] >= 0
