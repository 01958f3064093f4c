"""Exports: the formats of other tools, with every row and the values of the tables."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from aupipe import facs
from aupipe.affwild2 import submission
from aupipe.annotation.export import export
from aupipe.annotation.schema import INTENSITY, PROB, frames_schema
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Export frames 0 to 4: face 0 in 0, 1 and 4, face 1 in 1, no face in 2, and 3 not decoded."""

    def face(frame: int, face_id: int, on: bool) -> dict:
        told = dict.fromkeys(facs.AUS, on) | dict.fromkeys(PROB, 0.9) | dict.fromkeys(INTENSITY, 0.8 if on else 0.1)
        geometry = {"landmarks": [float(n) for n in range(10)], "detector_score": 0.75, "status": "ok"}
        return {"frame": frame, "time_s": frame / 25, "face_id": face_id, "votes_raw": [0.5] * 24} | told | geometry

    rows = [face(0, 0, True), face(1, 0, True), face(1, 1, False), {"frame": 2, "status": "no_face"}]
    rows += [{"frame": 3, "status": "decode_error"}, face(4, 0, False)]
    rows = [{"video_id": 'deep/a "b".mp4'} | row for row in rows]
    export(Storage(tmp_path), ("csv", "openface", "abaw"), pa.Table.from_pylist(rows, schema=frames_schema(models=2)))
    return tmp_path / "export" / "{}" / "deep"


def test_csv_has_every_row_and_plain_columns(exported: Path) -> None:
    table = pd.read_csv(str(exported / 'a "b".mp4.csv').format("csv"))
    assert table.frame.tolist() == [0, 1, 1, 2, 3, 4]
    assert table.AU12.tolist()[:3] == [True, True, False]
    assert table.loc[0, ["x_0", "y_0", "y_4"]].tolist() == [0, 1, 9]
    assert table.x_0.isna().tolist() == [False, False, False, True, True, False]
    assert "votes_raw" not in table.columns


def test_openface_columns(exported: Path) -> None:
    table = pd.read_csv(str(exported / 'a "b".mp4.csv').format("openface"))
    assert table.columns.tolist()[:6] == ["frame", "face_id", "timestamp", "confidence", "success", "gaze_0_x"]
    assert table.frame.tolist() == [1, 2, 2, 3, 4, 5]
    assert table.success.tolist() == [1, 1, 1, 0, 0, 1]
    assert table.AU25_r.tolist() == pytest.approx([4.0, 4.0, 0.5, 0, 0, 0.5])
    assert table.AU25_c.tolist() == [1, 1, 0, 0, 0, 0]
    # OpenFace has 17 intensities, 18 presences, 68 points in the plane and in space, and 40 parameters of its shape.
    theirs = [f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]
    assert {f"{au}_r" for au in theirs} | {f"{au}_c" for au in [*theirs, "AU28"]} < set(table.columns)
    assert table.columns.is_unique
    assert len(table.columns) == 5 + 8 + 6 + 5 * 68 + 40 + 17 + 18 + 2
    for name in ("gaze_angle_x", "pose_Rx", "x_67", "Z_0", "p_33", "AU45_r", "AU28_c"):
        assert table[name].isna().all()


def test_abaw_has_a_line_a_frame_of_the_face_seen_most(exported: Path) -> None:
    text = Path(str(exported / 'a "b".txt').format("abaw")).read_text()
    decided = submission.read_track(text, 5)
    assert decided[:, 6].tolist() == [True, True, True, False, False]
    assert io.StringIO(text).readline().startswith("AU1,AU2")


def test_the_longest_names_find_a_place_and_do_not_meet(tmp_path: Path) -> None:
    ids = [f"{'ü' * 120}{number}xxxxxxxxx.mp4" for number in range(2)]
    assert {len(video_id.encode()) for video_id in ids} == {254}
    for video_id in ids:
        rows = [{"video_id": video_id, "frame": 0, "time_s": 0.0, "status": "no_face"}]
        export(Storage(tmp_path), ("csv",), pa.Table.from_pylist(rows, schema=frames_schema()))
    names = [path.name for path in (tmp_path / "export" / "csv").iterdir()]
    assert len(names) == 2
    assert all(name.endswith(".csv") for name in names)
