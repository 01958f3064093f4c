"""Intensities above the resting face: own rest of long tracks, that of the population otherwise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from aupipe import facs
from aupipe.annotation.postprocess import Decision, apply_decision
from aupipe.annotation.rest import intensity, rest_of
from aupipe.annotation.schema import INTENSITY, PROB, RAW, frames_schema

pytestmark = pytest.mark.unit

THRESHOLDS = dict.fromkeys(facs.AUS, 0.6)
POPULATION = dict.fromkeys(facs.AUS, 0.1) | {"AU25": 0.2}


def video(faces: dict[int, np.ndarray], step_s: float) -> pa.Table:
    """Return the frames table of faces whose raw probabilities of all AUs are given, one value per frame."""
    schema = frames_schema()
    rows = [
        {"video_id": "v", "frame": n, "time_s": n * step_s, "face_id": face, "status": "ok"} | dict.fromkeys(RAW, p)
        for face, values in faces.items()
        for n, p in enumerate(values.tolist())
    ]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["frame"]), schema=schema)


@pytest.mark.parametrize(
    ("frames", "step_s", "own"),
    [(1, 1.0, False), (49, 1.0, False), (50, 1.0, True), (51, 1.0, True), (100, 0.1, False), (101, 0.1, True),
     (102, 0.1, True), (250, 0.04, False), (251, 0.04, True)],
)  # fmt: skip
def test_a_face_has_its_own_rest_from_fifty_frames_over_ten_seconds(frames: int, step_s: float, own: bool) -> None:
    times = (np.arange(frames) * step_s).round(6)
    found = rest_of(times, np.full(frames, 0.3), 0.1, 0.6)
    assert found == (0.3 if own else 0.1)


def test_the_rest_is_a_low_quantile_that_single_frames_do_not_move() -> None:
    times, rng = np.arange(1000) * 0.04, np.random.default_rng(0)
    values = np.where(np.arange(1000) % 3 == 0, 0.5, 0.3) + rng.normal(0, 0.01, 1000)
    values[:20] = 0.0  # wrong frames
    assert rest_of(times, values, 0.1, 0.6) == pytest.approx(0.3, abs=0.02)
    # A face that shows the AU nearly always gives no rest: the smile would vanish.
    assert rest_of(times, np.full(1000, 0.8), 0.1, 0.6) == 0.1
    assert rest_of(times, np.full(1000, 0.6), 0.1, 0.6) == 0.1  # a probability at its threshold is positive


def test_the_rest_is_a_probability_that_occurs_so_that_intensity_is_exactly_zero_there() -> None:
    times, values = np.arange(52.0), np.linspace(0.1, 0.9, 52) ** 2
    rest = rest_of(times, values, 0.0, 0.6)
    assert rest in values.tolist()
    assert (intensity(values, rest) == 0).sum() == 1 + values.tolist().index(rest)


def test_intensity_is_zero_at_rest_and_one_at_probability_one() -> None:
    assert intensity(np.array([0.1, 0.2, 0.6, 1.0]), 0.2) == pytest.approx([0, 0, 0.5, 1])
    assert intensity(np.array([0.3, 1.0]), 0.0) == pytest.approx([0.3, 1.0])
    assert intensity(np.array([0.3, 1.0]), 1.0).tolist() == [0, 0]


def test_each_face_is_measured_from_its_own_rest_and_booleans_are_not() -> None:
    smile = np.where(np.arange(200) >= 100, 0.7, 0.4)
    table = video({0: smile, 1: smile[:30], 2: np.full(200, 0.9)}, step_s=0.1)
    decision = Decision("mean", (THRESHOLDS,), (0,), POPULATION)
    found = apply_decision(table, decision)
    by_face = {face: found.filter(pa.compute.equal(found["face_id"], face)) for face in (0, 1, 2)}
    values = by_face[0]["AU12_intensity"].to_numpy()
    assert values[:100] == pytest.approx(0, abs=1e-6)
    assert values[100:] == pytest.approx(0.5)  # (0.7 − 0.4) / (1 − 0.4)
    assert by_face[1]["AU12_intensity"].to_numpy() == pytest.approx(0.3 / 0.9)  # a short track: population
    assert by_face[1]["AU25_intensity"].to_numpy() == pytest.approx(0.2 / 0.8)
    assert by_face[2]["AU12_intensity"].to_numpy() == pytest.approx(0.8 / 0.9)  # never at rest: population
    assert by_face[0]["AU12"].to_pylist() == [False] * 100 + [True] * 100
    assert apply_decision(found, decision).equals(found)
    without = apply_decision(table, Decision("mean", (THRESHOLDS,), (0,)))
    for name in (*PROB, *facs.AUS):
        assert without[name].equals(found[name])


def test_rows_without_a_prediction_have_no_intensity() -> None:
    table = video({0: np.full(60, 0.3)}, step_s=1.0)
    rows = [*table.to_pylist(), {"video_id": "v", "frame": 60, "time_s": 60.0, "status": "no_face"}]
    found = apply_decision(pa.Table.from_pylist(rows, schema=table.schema), Decision("mean", (THRESHOLDS,), (1,)))
    for name in INTENSITY:
        assert found[name].to_pylist() == pytest.approx([0.0] * 60 + [None])
