import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from aupipe import facs
from aupipe.facestore.read import StoreIndex
from aupipe.learning.predictions import Predictions

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


TRACKS = [("a.mp4", "left", [1, 2, 3, 4]), ("a.mp4", "right", [5, 6]), ("b.mp4", "right", [7, 8, 9, 12, 13])]


def test_smoothing_crosses_no_video_person_or_gap() -> None:
    raw = predictions(TRACKS)
    smooth = raw.smoothed(1).probabilities
    p = raw.probabilities
    assert smooth[0] == pytest.approx(p[0:2].mean(0))
    assert smooth[1] == pytest.approx(p[0:3].mean(0))
    assert smooth[3] == pytest.approx(p[2:4].mean(0))  # not into the other person
    assert smooth[4] == pytest.approx(p[4:6].mean(0))
    assert smooth[6] == pytest.approx(p[6:8].mean(0))  # frame 7 of another video
    assert smooth[8] == pytest.approx(p[7:9].mean(0))  # not over the gap 9 … 12
    assert smooth[9] == pytest.approx(p[9:11].mean(0))


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


def test_rows_of_a_store_keep_their_labels(make_store: Callable[..., str]) -> None:
    index = StoreIndex.open(make_store(train=2, frames=8))
    rows = index.labels("train")
    found = Predictions.of(rows, np.zeros((16, 12)))
    assert found.labels.tolist() == rows["au"].to_pylist()
    only = found.of_videos(frozenset({"train01.mp4"}))
    assert set(only.video_id) == {"train01.mp4"}
    assert only.frame.tolist() == list(range(1, 9))
