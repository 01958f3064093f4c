import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.evaluation import decision, report
from aupipe.evaluation.predictions import Predictions, align_predictions
from aupipe.facestore.read import FaceStore

pytestmark = pytest.mark.unit


def predictions(tracks: list[tuple[str, str, list[int]]], seed: int = 0) -> Predictions:
    n = sum(len(frames) for *_, frames in tracks)
    rng = np.random.default_rng(seed)
    return Predictions(
        video_id=np.array([v for v, _, frames in tracks for _ in frames], dtype=object),
        person=np.array([p for _, p, frames in tracks for _ in frames], dtype=object),
        frame=np.array([f for *_, frames in tracks for f in frames]),
        labels=rng.integers(-1, 2, (n, 12)).astype(np.int8),
        probabilities=rng.random((n, 12)),
    )


def at_times(frames: list[int], values: list[float], time_s: list[float] | None = None) -> Predictions:
    n = len(frames)
    return Predictions(
        np.full(n, "1-10-9x9", dtype=object), np.full(n, "", dtype=object), np.array(frames),
        np.zeros((n, 12), np.int8), np.repeat(np.array(values)[:, None], 12, axis=1),
        None if time_s is None else np.array(time_s),
    )  # fmt: skip


def test_rows_of_a_video_in_two_splits_are_smoothed_apart() -> None:
    found = at_times([1, 2, 3, 1, 2], [0.0, 0.0, 0.0, 1.0, 1.0]).smoothed(2).probabilities[:, 0]
    assert found.tolist() == [0, 0, 0, 1, 1]


def test_short_gaps_are_interpolated_before_smoothing_and_long_ones_are_not() -> None:
    # 10 frames a second by the name: a hole of 20 frames is 2 s.
    short = at_times([1, 2, 4], [0.0, 0.0, 1.0]).smoothed(1).probabilities[:, 0]
    assert short == pytest.approx([0, (0 + 0 + 0.5) / 3, (0.5 + 1) / 2])
    assert at_times([1, 21], [0.0, 1.0]).smoothed(1).probabilities[0, 0] == pytest.approx(0.025)
    assert at_times([1, 22], [0.0, 1.0]).smoothed(30).probabilities[:, 0].tolist() == [0, 1]
    # Media time goes before the name.
    assert at_times([1, 3], [0.0, 1.0], [0.0, 2.5]).smoothed(5).probabilities[:, 0].tolist() == [0, 1]
    assert at_times([1, 41], [0.0, 1.0], [0.0, 1.5]).smoothed(1).probabilities[0, 0] == pytest.approx(0.0125)
    # Where one frame has none, the rate in the name decides.
    assert at_times([1, 3], [0.0, 1.0], [0.0, np.nan]).smoothed(1).probabilities[0, 0] == pytest.approx(0.25)


TRACKS = [("a.mp4", "left", [1, 2, 3, 4]), ("a.mp4", "right", [5, 6]), ("b.mp4", "right", [7, 8, 9, 12, 13])]


def test_smoothing_crosses_no_video_or_person() -> None:
    raw = predictions(TRACKS)
    smooth = raw.smoothed(1).probabilities
    p = raw.probabilities
    assert smooth[0] == pytest.approx(p[0:2].mean(0))
    assert smooth[1] == pytest.approx(p[0:3].mean(0))
    assert smooth[3] == pytest.approx(p[2:4].mean(0))  # not into the other person
    assert smooth[4] == pytest.approx(p[4:6].mean(0))
    assert smooth[6] == pytest.approx(p[6:8].mean(0))  # frame 7 of another video
    assert smooth[8] == pytest.approx((p[7] + p[8] + (2 * p[8] + p[9]) / 3) / 3)  # frames 10 and 11 on a line


def test_radius_zero_is_identity() -> None:
    raw = predictions(TRACKS)
    assert raw.smoothed(0) is raw


def test_parquet_has_the_named_columns() -> None:
    raw = predictions(TRACKS)
    frame = pd.read_parquet(io.BytesIO(raw.to_parquet(raw.probabilities >= 0.5)))
    assert list(frame.columns[:3]) == ["video_id", "person", "frame"]
    assert [c for c in frame.columns if c in facs.AUS] == list(facs.AUS)
    assert np.array_equal(frame[[f"{au}_label" for au in facs.AUS]].to_numpy(), raw.labels)
    assert frame[[f"{au}_prob" for au in facs.AUS]].to_numpy() == pytest.approx(raw.probabilities, abs=1e-7)
    assert np.array_equal(frame[list(facs.AUS)].to_numpy(), raw.probabilities >= 0.5)


def test_labels_and_probabilities_come_back_from_parquet() -> None:
    raw = predictions(TRACKS)
    found = Predictions.from_parquet(raw.to_parquet(raw.probabilities >= 0.5))
    for name in ("video_id", "person", "frame", "labels"):
        assert np.array_equal(getattr(found, name), getattr(raw, name)), name
    assert found.probabilities == pytest.approx(raw.probabilities, abs=1e-7)


def test_a_table_is_aligned_to_the_store_row_by_row(make_store: Callable[..., str]) -> None:
    rows = FaceStore.open(make_store(train=3, frames=8)).labels("train")
    rng = np.random.default_rng(0)
    raw = Predictions.of(rows, rng.random((24, 12)).astype(np.float32))
    decided = rng.random((24, 12)) < 0.5
    table = pq.read_table(io.BytesIO(raw.to_parquet(decided)))
    found, same = align_predictions(rows, table.take(rng.permutation(24)))
    known = raw.labeled()
    assert 0 < known.sum() < 24
    assert np.array_equal(found.probabilities, raw.probabilities[known])
    assert np.array_equal(found.labels, raw.labels[known])
    assert np.array_equal(same, decided[known])
    bare = table.drop_columns([f"{au}_prob" for au in facs.AUS])
    assert np.array_equal(align_predictions(rows, bare)[0].probabilities, decided[known])
    with pytest.raises(DatasetError, match=f"1 of {known.sum()} labeled rows have no prediction"):
        align_predictions(rows, table.filter(pa.array(np.arange(24) != np.flatnonzero(known)[3])))


def test_predictions_of_another_program_are_checked(make_store: Callable[..., str]) -> None:
    rows = FaceStore.open(make_store(train=3, frames=8)).labels("train")
    raw = Predictions.of(rows, np.random.default_rng(0).random((24, 12)).astype(np.float32))
    table = pq.read_table(io.BytesIO(raw.to_parquet(raw.probabilities >= 0.5)))
    numbers = pa.array((raw.probabilities[:, 6] >= 0.5).astype(int))

    def given(name: str, values: pa.Array) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values)

    same = align_predictions(rows, given("AU12", numbers))[1]
    assert np.array_equal(same, align_predictions(rows, table)[1])
    ones, halves = numbers.to_pylist(), [0.5] * 24
    for name, values, reason in (
        ("AU12", pa.array([2] * 24), "AU12 of the predictions has 2 "),
        ("AU12", pa.array([None] * 24, pa.bool_()), "AU12 of the predictions has None "),
        ("AU12", pa.array(halves), "AU12 of the predictions has 0.5 .* AU12_prob"),
        ("AU12", pa.array([float("nan")] * 24), "AU12 of the predictions has nan "),
        ("AU12_prob", pa.array([3.0] * 24), "AU12_prob of the predictions has 3 "),
        ("AU12_prob", pa.array([None] * 23 + [0.5]), "AU12_prob of the predictions has nan "),
        ("AU12_prob", pa.array(["much"] * 24), "AU12_prob of the predictions is string"),
    ):
        with pytest.raises(DatasetError, match=reason):
            align_predictions(rows, given(name, values))
    with pytest.raises(DatasetError, match="probabilities of some AUs only; add the columns AU12_prob"):
        align_predictions(rows, table.drop_columns(["AU12_prob"]))
    labeled, other = (int(np.flatnonzero(raw.labeled() == known)[0]) for known in (True, False))
    with pytest.raises(DatasetError, match=r"frame \d+ of .* is predicted 2 times"):
        align_predictions(rows, pa.concat_tables([table, table.slice(labeled, 1)]))
    # Rows without a label are not scored, whatever they say.
    wrong = [None if row == other else value for row, value in enumerate(ones)]
    again = pa.concat_tables([given("AU12", pa.array(wrong)), given("AU12", pa.array(wrong)).slice(other, 1)])
    assert np.array_equal(align_predictions(rows, again)[1], same)


def test_rows_of_a_store_keep_their_labels(make_store: Callable[..., str]) -> None:
    index = FaceStore.open(make_store(train=2, frames=8))
    rows = index.labels("train")
    found = Predictions.of(rows, np.zeros((16, 12)))
    assert found.labels.tolist() == rows["au"].to_pylist()
    only = found.of_videos(frozenset({"train01.mp4"}))
    assert set(only.video_id) == {"train01.mp4"}
    assert only.frame.tolist() == list(range(1, 9))


def with_expressions(classes: int) -> Predictions:
    raw = predictions(TRACKS)
    n = len(raw.frame)
    return replace(raw, expressions=np.full((n, classes), 1 / classes), expression_labels=np.arange(n) % 7)


CONTEMPT = (*facs.EXPRESSIONS_ABAW2, "Contempt")


@pytest.mark.parametrize(
    ("classes", "names", "of_labels", "scored"),
    [
        (8, facs.EXPRESSIONS, facs.EXPRESSIONS, True),
        (7, facs.EXPRESSIONS, CONTEMPT, True),  # the model lacks the eighth class, in which they differ
        (8, facs.EXPRESSIONS, facs.EXPRESSIONS_ABAW2, True),
        (8, CONTEMPT, facs.EXPRESSIONS, False),
        (6, ("Neutral", "Smile", "Surprise", "Squint", "Disgust", "Scream"), facs.EXPRESSIONS, False),
    ],
)
def test_expressions_are_scored_only_against_labels_of_the_same_classes(
    classes: int, names: tuple[str, ...], of_labels: tuple[str, ...], scored: bool
) -> None:
    raw = with_expressions(classes).with_classes(names, of_labels)
    stages = decision.decide([decision.Member(raw, np.full(12, 0.5), 1)], "mean")
    assert (report.report(stages)["expression"] is not None) == scored
    table = pq.read_table(io.BytesIO(raw.to_parquet(stages["raw_at_0.5"].decided)))
    assert table.column_names[-classes:] == [f"EXPR_{name}_prob" for name in names[:classes]]
    assert table["EXPR_label"].to_pylist() == (list(np.arange(len(raw.frame)) % 7) if scored else [-1] * len(raw.frame))


def test_a_class_without_a_name_has_a_number() -> None:
    raw = with_expressions(9)
    assert "EXPR_8_prob" in pq.read_table(io.BytesIO(raw.to_parquet(raw.labels > 0))).column_names


def test_models_of_other_classes_are_not_averaged() -> None:
    raw = with_expressions(8)
    other = raw.with_classes(CONTEMPT, facs.EXPRESSIONS)
    for members, expected in (([raw, raw], True), ([raw, other], False), ([raw, predictions(TRACKS)], False)):
        found = decision.decide([decision.Member(one, np.full(12, 0.5), 0) for one in members], "mean")
        assert (found["raw_at_0.5"].predictions.expressions is not None) == expected
