"""Finalize: ids, raw probabilities, decisions and events, from the rows of extraction."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest

from aupipe import facs
from aupipe.annotation.events import find_events
from aupipe.annotation.postprocess import Decision, apply_decision, predict_video
from aupipe.annotation.schema import FEATURES, FRAMES, PROB, RAW, expression_columns, frames_schema, to_parquet
from aupipe.annotation.settings import AnnotateConfig, EventsConfig
from aupipe.faces.track import TrackingConfig

pytestmark = pytest.mark.unit

HALF = dict.fromkeys(facs.AUS, 0.5)


def feature_rows(rows: list[dict]) -> pa.Table:
    """Return rows with a face at x (None: no face), with status ok if they have a `p`, of people who all look alike."""
    full: list[dict] = []
    counts: dict[int, int] = {}
    for row in rows:
        counts[row["frame"]] = counts.get(row["frame"], 0) + (row.get("x") is not None)
    for row in rows:
        base = {"frame": row["frame"], "time_s": row["frame"] * 0.04, "cut": row.get("cut", False), "corrupt": False}
        if row.get("x") is None:
            full.append(base | {"status": row.get("status", "no_face")})
        else:
            box = {"box_x": row["x"], "box_y": 0.0, "box_w": 100.0, "box_h": 100.0, "detector_score": 0.9}
            status = {"status": "ok" if "p" in row else "face_too_small"}
            full.append(base | box | status | {
                "landmarks": [0.0] * 10,
                "resumes": [n for f in counts if f < row["frame"] for face in range(counts[f]) for n in (f, face)],
            })  # fmt: skip
    return pa.Table.from_pylist(full, schema=FEATURES).drop_columns(["embedding"])


def raw(rows: list[dict], models: int = 1, classes: int = 0) -> pa.Table:
    """Predict rows with a face at x for which the models give `p`, one number per model, and expressions `e`."""
    table = feature_rows(rows)
    values = {}
    for number, row in enumerate(sorted((r for r in rows), key=lambda r: r["frame"])):
        p = np.atleast_1d(row.get("p", np.nan))
        values[number] = np.concatenate([np.repeat(p, len(facs.AUS)), row.get("e", [])])
    return predict_video(
        "v", table, lambda at, times: [(slice(None), np.stack([values[n] for n in at.tolist()]))], models, classes,
        TrackingConfig(),
    )  # fmt: skip


def alone(radius: int = 0, **thresholds: float) -> Decision:
    return Decision("mean", (HALF | thresholds,), (radius,))


def run(rows: list[dict], radius: int = 0) -> pa.Table:
    return apply_decision(raw(rows), alone(radius))


def test_every_frame_is_a_row_and_only_faces_have_probabilities() -> None:
    table = run([
        {"frame": 0, "x": 0.0, "p": 0.7}, {"frame": 0, "x": 500.0, "p": 0.2}, {"frame": 1},
        {"frame": 2, "status": "decode_error"}, {"frame": 3, "x": 1.0, "p": 0.4}, {"frame": 3, "x": 499.0},
    ])  # fmt: skip
    assert table.schema.equals(FRAMES)
    assert table["frame"].to_pylist() == [0, 0, 1, 2, 3, 3]
    assert table["face_id"].to_pylist() == [0, 1, None, None, 0, 1]
    assert table["status"].to_pylist() == ["ok", "ok", "no_face", "decode_error", "ok", "face_too_small"]
    for names in (RAW, PROB):
        assert table[names[0]].to_pylist() == pytest.approx([0.7, 0.2, None, None, 0.4, None])
    assert table["AU26"].to_pylist() == [True, False, None, None, False, None]


def test_probabilities_stay_with_their_face_when_rows_are_sorted() -> None:
    seen = [(0, 0.0, 0.1), (0, 500.0, 0.2), (0, 1000.0, 0.3), (1, 500.0, 0.5), (1, 1000.0, 0.6), (1, 0.0, 0.4)]
    table = raw([{"frame": frame, "x": x, "p": (p, p + 0.2), "e": (p, 1 - p)} for frame, x, p in seen], 2, 2)
    assert table["face_id"].to_pylist() == [0, 1, 2, 0, 1, 2]
    assert table["box_x"].to_pylist() == [0, 500, 1000, 0, 500, 1000]
    probabilities = np.arange(1, 7) / 10
    np.testing.assert_allclose(table["AU12_raw"], probabilities + 0.1, rtol=1e-6)
    np.testing.assert_allclose(table[expression_columns(2)[1]], probabilities, rtol=1e-6)
    both = np.repeat(np.stack([probabilities, probabilities + 0.2], axis=1), 12, axis=1)
    np.testing.assert_allclose(table["votes_raw"].to_pylist(), both, rtol=1e-6)


def test_smoothing_follows_the_face_and_gaps_count_as_missing() -> None:
    rows = [{"frame": i, "x": 0.0, "p": 1.0} for i in (0, 1, 4)] + [{"frame": i, "x": 500.0, "p": 0.0} for i in (2, 3)]
    table = run(sorted([*rows, {"frame": 4, "x": 500.0, "p": 0.6}], key=lambda r: r["frame"]), radius=1)
    by_face = {face: table.filter(pa.compute.equal(table["face_id"], face))["AU01_prob"].to_pylist() for face in (0, 1)}
    assert by_face[0] == pytest.approx([1, 1, 1])
    assert by_face[1] == pytest.approx([0, 0.2, 0.3])


def test_the_decision_is_made_at_the_stored_precision() -> None:
    table = run([{"frame": 0, "x": 0.0, "p": 0.1}])
    decided = apply_decision(table, alone(AU12=float(np.float32(0.1))))
    assert decided["AU12"].to_pylist() == [True]  # a tie is positive
    assert decided["AU10"].to_pylist() == [False]


def test_deciding_again_equals_deciding_once() -> None:
    rows = [{"frame": i, "x": 0.0, "p": (i % 7) / 7} for i in range(40)]
    other = alone(3, **dict.fromkeys(facs.AUS, 0.3))
    again, once = apply_decision(run(rows), other), apply_decision(run(rows, radius=5), other)
    assert again.equals(once)
    assert to_parquet(again, FRAMES) == to_parquet(once, FRAMES)


def test_events_bridge_short_gaps_and_stand_in_media_time() -> None:
    on = {2, 3, 4, 6, 7, 20, 21}
    rows = [{"frame": i, "x": 0.0, "p": 0.8 + i / 1000 if i in on else 0.1} for i in range(30)]
    events = find_events(run(rows), EventsConfig(max_gap_s=0.1), HALF).to_pylist()
    mine = [event for event in events if event["au"] == "AU12"]
    got = [time for e in mine for time in (e["onset_s"], e["apex_s"], e["offset_s"])]
    assert got == pytest.approx([0.08, 0.28, 0.28, 0.8, 0.84, 0.84])
    assert mine[0]["peak"] == pytest.approx(0.807)
    assert mine[0]["mean"] == pytest.approx(np.mean([0.802, 0.803, 0.804, 0.806, 0.807]))
    assert len(events) == 2 * 12
    assert len(find_events(run(rows), EventsConfig(max_gap_s=0.1, min_duration_s=0.1), HALF)) == 12


@pytest.mark.parametrize("first", [0, 52, 1000])
def test_gaps_and_events_of_as_many_frames_are_as_long_anywhere_in_a_video(first: int) -> None:
    config = AnnotateConfig(events={"min_duration_s": 0.2}).effective_events
    on = {*range(6), 10, *range(20, 26)}  # a gap of five steps, and an event of as many
    table = run([{"frame": first + i, "x": 0.0, "p": 0.8 if i in on else 0.1} for i in range(30)])
    found = find_events(table, config, HALF).to_pylist()
    spans = [(e["onset_frame"] - first, e["offset_frame"] - first) for e in found if e["au"] == "AU12"]
    assert spans == [(0, 10), (20, 25)]


def test_an_event_of_a_video_with_few_frames_per_second_is_one_event() -> None:
    table = run([{"frame": i, "x": 0.0, "p": 0.8 if i in (2, 3, 4, 8) else 0.1} for i in range(10)])
    slow = table.set_column(table.schema.get_field_index("time_s"), "time_s", pa.array(np.arange(10.0)))
    events = find_events(slow, EventsConfig(), HALF).to_pylist()
    assert [(e["onset_s"], e["offset_s"]) for e in events if e["au"] == "AU12"] == [(2.0, 4.0), (8.0, 8.0)]


def test_gaps_of_a_video_are_measured_by_its_times_even_if_a_frame_has_none() -> None:
    table = run([{"frame": i, "x": 0.0, "p": 0.8 if i in (1, 2, 6) else 0.1} for i in range(10)])
    times = [0.0, 0.5, None, *np.arange(1.5, 5.0, 0.5)]  # two frames per second, so 4 frames are 2 s
    slow = table.set_column(table.schema.get_field_index("time_s"), "time_s", pa.array(times, pa.float64()))
    for max_gap_s, expected in ((1.9, [(1, 2), (6, 6)]), (2.1, [(1, 6)])):
        events = find_events(slow, EventsConfig(max_gap_s=max_gap_s), HALF).to_pylist()
        assert [(e["onset_frame"], e["offset_frame"]) for e in events if e["au"] == "AU12"] == expected
        assert events[0]["offset_s"] == (None if max_gap_s < 2 else 3.0)


def test_hysteresis_extends_events_and_makes_none() -> None:
    probabilities = [0.1, 0.4, 0.8, 0.42, 0.41, 0.7, 0.3, 0.45, 0.45, 0.45]
    table = run([{"frame": i, "x": 0.0, "p": p} for i, p in enumerate(probabilities)])

    def spans(hysteresis: float) -> list[tuple[int, int]]:
        found = find_events(table, EventsConfig(max_gap_s=0.05, hysteresis=hysteresis), HALF).to_pylist()
        return [(each["onset_frame"], each["offset_frame"]) for each in found if each["au"] == "AU12"]

    assert spans(0.0) == [(2, 2), (5, 5)]
    assert spans(0.11) == [(1, 5)]  # The frames from 7 on never reach the threshold.
    assert spans(0.25) == [(1, 9)]


def test_a_video_without_a_face_has_no_events() -> None:
    rows = [{"frame": i} for i in range(5)]
    together = apply_decision(raw(rows, models=3, classes=7), Decision("vote", (HALF,) * 3, (0, 1, 2)))
    for table in (run(rows), together):
        assert table["AU01_raw"].null_count == table["AU01"].null_count == 5
        assert len(find_events(table, EventsConfig(), HALF)) == 0


def test_models_decide_by_their_mean_or_each_by_itself() -> None:
    rows = [{"frame": i, "x": 0.0, "p": (0.9, 0.4, 0.4)} for i in range(3)] + [{"frame": 3}]
    table = raw(rows, models=3)
    assert table.schema.equals(frames_schema(models=3))
    assert table["AU01_raw"].to_pylist()[:1] == pytest.approx([1.7 / 3])
    assert table["votes_raw"].to_pylist()[1] == pytest.approx([0.9] * 12 + [0.4] * 24)
    assert table["votes_raw"].to_pylist()[3] is None
    thresholds = (HALF, HALF, HALF | {"AU12": 0.3})
    mean, vote = (apply_decision(table, Decision(how, thresholds, (0, 0, 0))) for how in ("mean", "vote"))
    for table in (mean, vote):
        assert table["AU01_prob"].to_pylist() == pytest.approx([1.7 / 3] * 3 + [None])
    assert mean["AU01"].to_pylist() == [True, True, True, None]
    assert vote["AU01"].to_pylist() == [False, False, False, None]
    assert vote["AU12"].to_pylist() == [True, True, True, None]
    assert apply_decision(mean, Decision("vote", thresholds, (0, 0, 0))).equals(vote)


def test_each_model_smooths_for_itself() -> None:
    rows = [{"frame": i, "x": 0.0, "p": (1.0 if i == 2 else 0.0,) * 2} for i in range(5)]
    table = apply_decision(raw(rows, models=2), Decision("mean", (HALF, HALF), (0, 1)))
    assert table["AU01_prob"].to_pylist() == pytest.approx([0, 1 / 6, 4 / 6, 1 / 6, 0])


def test_expressions_are_named_and_not_smoothed() -> None:
    rows = [
        {"frame": 0, "x": 0.0, "p": 0.1, "e": [0.2, 0.5, 0.3]}, {"frame": 1},
        {"frame": 2, "x": 0.0, "p": 0.1, "e": [0.6, 0.2, 0.2]},
    ]  # fmt: skip
    table = apply_decision(raw(rows, classes=3), alone(radius=1))
    assert table.schema.equals(frames_schema(classes=3))
    assert table["EXPR"].to_pylist() == ["Anger", None, "Neutral"]
    assert table["EXPR_Disgust_prob"].to_pylist() == pytest.approx([0.3, None, 0.2])


def test_thousands_of_faces_take_no_longer_than_as_many_rows_of_one() -> None:
    count = 40_000
    columns = {field.name: pa.nulls(count, field.type) for field in FRAMES}
    columns |= {"frame": pa.array(np.arange(count), pa.int32()), "time_s": pa.array(np.arange(count) * 0.04)}
    columns |= dict.fromkeys(facs.AUS, pa.array(np.arange(count) % 400 == 0))
    columns |= dict.fromkeys(PROB, pa.array(np.full(count, 0.9, np.float32)))
    seconds = []
    for of_each in (count, 10):
        frames = pa.table(columns | {"face_id": pa.array(np.arange(count) // of_each, pa.int32())}, FRAMES)
        start = time.process_time()
        assert len(find_events(frames, EventsConfig(), HALF)) == 12 * count // 400
        seconds.append(time.process_time() - start)
    assert seconds[1] < 4 * seconds[0] + 0.5
