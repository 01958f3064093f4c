"""Extraction: crops are aligned to the model's template, parts are bounded, and rows have the status of each frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from aupipe.annotation import extract as module
from aupipe.annotation.extract import CropBatch, extract, with_embeddings
from aupipe.annotation.schema import FEATURES, POSE
from aupipe.annotation.segments import Input, cut_into_segments
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.pose import head_pose
from aupipe.faces.sharpness import sharpness
from aupipe.faces.track import TrackingConfig
from aupipe.media.frames import frames
from aupipe.media.probe import probe
from harness.clips import damage, scene, write_clip

pytestmark = pytest.mark.unit

ODD_TEMPLATE = (ARCFACE_TEMPLATE - 56) * 0.8 + np.array([56, 48], np.float32)


def run(
    path: Path, templates: np.ndarray = ARCFACE_TEMPLATE[None], config: DetectorConfig | None = None
) -> list[CropBatch]:
    (segment,) = cut_into_segments(Input(str(path), "v"), probe(str(path)), 1e9, 4)
    images = frames(segment.uri, segment.span)
    return list(extract(segment, images, Detector(config or DetectorConfig()), 4, templates, TrackingConfig()))


def seen_on(crops: np.ndarray) -> np.ndarray:
    """Return the median (5, 2) of the landmarks that the detector finds on crops."""
    detector = Detector(DetectorConfig())
    points = [detector.detect(cv2.resize(c, (224, 224))).landmarks[0] / 2 for c in crops]
    return np.median(points, axis=0)


def test_each_face_is_cropped_on_the_template_of_each_model(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(8), options={"crf": "10"})
    (part,) = run(path, np.stack([ARCFACE_TEMPLATE, ODD_TEMPLATE]))
    arcface, odd = (seen_on(part.crops[:, number]) for number in (0, 1))
    shift = odd - arcface
    np.testing.assert_allclose(shift, ODD_TEMPLATE - ARCFACE_TEMPLATE, atol=2.5)
    assert np.abs(shift).max() > 8


def test_parts_are_bounded_and_together_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", scene(30))
    (whole,) = run(path)
    monkeypatch.setattr(module, "PART_CROPS", 7)
    parts = run(path)
    assert [(part.number, part.last, len(part.crops)) for part in parts] == [
        (0, False, 7), (1, False, 7), (2, False, 7), (3, False, 7), (4, True, 2),
    ]  # fmt: skip
    assert pa.concat_tables([part.rows for part in parts]).equals(whole.rows)
    np.testing.assert_array_equal(np.concatenate([part.crops for part in parts]), whole.crops)


def test_each_frame_says_what_became_of_it(tmp_path: Path) -> None:
    images = scene(60)
    images[10] = scene(1, people=())[0]
    path = write_clip(tmp_path / "a.mp4", images, options={"g": "12", "bf": "2", "crf": "18"})
    at = damage(path)
    (part,) = run(path)
    rows = part.rows.to_pylist()
    status = {row["frame"]: row["status"] for row in rows}
    assert sorted(status) == list(range(60))
    assert status[0] == "ok"
    assert status[10] == "no_face"
    assert status[at] == "decode_error"
    assert len(part.crops) == list(status.values()).count("ok")
    ok = [row for row in rows if row["status"] == "ok"]
    assert [row["sharpness"] for row in ok] == np.float32([sharpness(crops[0]) for crops in part.crops]).tolist()
    unsmoothed = np.array([head_pose(np.reshape(row["landmarks"], (5, 2))) for row in ok])
    poses = np.array([[row[name] for name in POSE] for row in ok])
    assert np.abs(poses - unsmoothed).max() < 12
    assert np.diff(poses, axis=0).std() < np.diff(unsmoothed, axis=0).std()  # They follow the smoothed landmarks.
    assert all(row[name] is None for row in rows if row["status"] != "ok" for name in (*POSE, "sharpness"))
    (small,) = run(path, config=DetectorConfig(min_face_px=400))
    (row,) = small.rows.slice(0, 1).to_pylist()
    assert row["status"] == "face_too_small"
    assert row["sharpness"] is None
    assert row["pose_yaw"] == rows[0]["pose_yaw"]
    assert len(small.crops) == 0


def test_embeddings_stand_where_crops_were() -> None:
    schema = pa.schema([field for field in FEATURES if field.name != "embedding"])
    rows = pa.Table.from_pylist([{"frame": i, "status": s} for i, s in enumerate(("ok", "no_face", "ok"))], schema)
    table = with_embeddings(rows, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert table["embedding"].to_pylist() == [[0, 1, 2], None, [3, 4, 5]]
    assert table.schema.equals(FEATURES)
    none = with_embeddings(rows.slice(1, 1), np.zeros((0, 3), np.float32))
    assert none["embedding"].to_pylist() == [None]
