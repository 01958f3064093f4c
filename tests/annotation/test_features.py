"""Stored features: a segment is complete or absent, and embeddings are read a few parts at a time."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aupipe.annotation import features
from aupipe.annotation.schema import FEATURES
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def part(first: int, rows: int) -> pa.Table:
    """Return rows from frame `first` on; every third has no face. Embeddings are (frame, −frame, frame/2)."""
    found = [
        {"frame": i, "status": "no_face"} if i % 3 == 2 else {"frame": i, "status": "ok", "embedding": [i, -i, i / 2]}
        for i in range(first, first + rows)
    ]
    return pa.Table.from_pylist(found, schema=FEATURES)


def test_a_segment_counts_only_when_all_its_parts_are_there(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    empty = FEATURES.empty_table()
    for key, number, last in (("v.aa", 0, False), ("v.aa", 1, True), ("w.bb", 0, False), ("w.cc", 1, True)):
        features.write(storage, key, number, last, empty)
    assert {key: len(names) for key, names in features.segments(storage).items()} == {"v.aa": 2}
    features.delete(storage, {"v"})
    assert sorted(storage.names("_work/observed")) == [
        "_work/observed/w.bb-00000.parquet", "_work/observed/w.cc-00001-last.parquet",
    ]  # fmt: skip


def test_embeddings_of_a_track_come_from_the_parts_that_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    for number in range(10):
        features.write(storage, "aa", number, number == 9, part(30 * number, 30))
    files = features.segments(storage)["aa"]
    video = features.Embeddings(storage, files)
    assert video.rows["frame"].to_pylist() == list(range(300))
    assert "embedding" not in video.rows.column_names
    rows = np.array([i for i in range(300) if i % 3 != 2])
    loaded: list[int] = []
    load = video._part
    monkeypatch.setattr(video, "_part", lambda number: loaded.append(number) or load(number))
    track = video.of(rows, 1, 2)
    np.testing.assert_array_equal(track[35:60], np.stack([-rows, rows / 2], axis=1)[35:60].astype(np.float32))
    assert loaded == [1, 2]  # rows 52 to 88


def test_a_video_goes_from_memory_with_its_last_user(tmp_path: Path) -> None:
    """The video is freed without the garbage collector, which may not run for a long time."""
    features.write(Storage(tmp_path), "aa", 0, True, part(0, 30))
    video = features.Embeddings(Storage(tmp_path), features.segments(Storage(tmp_path))["aa"])
    video.take(np.arange(2))
    gone = weakref.ref(video)
    gc.disable()
    try:
        del video
        assert gone() is None
    finally:
        gc.enable()


def test_audio_times_end_at_the_first_restart_and_are_read_once_for_all_tracks() -> None:
    times, restarts = [0.0, 0.04, None, 0.12, 0.0, 0.04], [False] * 4 + [True, False]
    found = [{"frame": n, "time_s": times[n], "restart": restarts[n]} for n in range(6)]
    video = features.Embeddings.of_parts([pa.Table.from_pylist(found[at : at + 3], schema=FEATURES) for at in (0, 3)])
    np.testing.assert_array_equal(video.audio_time_s, [0.0, 0.04, np.nan, 0.12, np.nan, np.nan])
    assert video.audio_time_s is video.audio_time_s
