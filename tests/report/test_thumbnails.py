"""Pictures of the apexes: the strongest event of each AU, from its own frame, in the colors of the video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from aupipe.annotation import schema
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.report import thumbnails
from harness.clips import write_clip

pytestmark = pytest.mark.unit

LEVELS = [(20 * number, 200 - 20 * number, 90) for number in range(10)]  # the color of each frame


@pytest.fixture
def clip(tmp_path: Path) -> str:
    images = [np.full((144, 160, 3), level, np.uint8) for level in LEVELS]
    return str(write_clip(tmp_path / "a.mp4", images, options={"crf": "1"}))


def rows(face: int, without: int = -1) -> pa.Table:
    """Return the rows of a face in all frames; `without` has no landmarks."""
    points = (ARCFACE_TEMPLATE + np.float32([20, 10])).flatten().tolist()
    common = {"video_id": "a.mp4", "face_id": face, "status": "ok"}
    found = [common | {"frame": n, "landmarks": None if n == without else points} for n in range(10)]
    return pa.Table.from_pylist(found, schema=schema.FRAMES)


def events(*each: tuple[str, int, float]) -> pa.Table:
    """Return events with AU, frame of the apex, and peak."""
    found: list[dict[str, Any]] = [
        {"video_id": "a.mp4", "face_id": 0, "au": au, "apex_frame": apex, "apex_s": apex / 25, "peak": peak}
        for au, apex, peak in each
    ]
    return pa.Table.from_pylist(found, schema=schema.EVENTS)


def test_each_au_has_the_picture_of_its_strongest_event(clip: str) -> None:
    happened = events(("AU12", 3, 0.5), ("AU12", 7, 0.75), ("AU12", 1, 0.75), ("AU25", 2, 0.25), ("AU01", 7, 0.5))
    found = thumbnails.strongest(clip, 0, {0: rows(0)}, {0: happened})
    assert [(p.au, p.frame, p.time_s, p.peak) for p in found[0]] == [
        ("AU01", 7, 0.28, 0.5), ("AU12", 7, 0.28, 0.75), ("AU25", 2, 0.08, 0.25),
    ]  # fmt: skip
    for picture in found[0]:
        image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert image.shape == (112, 112, 3)
        assert image.mean(axis=(0, 1)) == pytest.approx(LEVELS[picture.frame], abs=5)


def test_an_apex_without_landmarks_has_no_picture(clip: str) -> None:
    happened = events(("AU12", 3, 0.5), ("AU25", 4, 0.5))
    found = thumbnails.strongest(clip, 0, {0: rows(0, without=3)}, {0: happened})
    assert [picture.au for picture in found[0]] == ["AU25"]


def test_the_first_faces_alone_have_pictures(clip: str) -> None:
    numbers = range(20, 20 + thumbnails.MAX_FACES + 2)  # in order of importance
    found = thumbnails.strongest(
        clip, 0, {face: rows(face) for face in numbers}, dict.fromkeys(numbers, events(("AU12", 3, 0.5)))
    )
    assert sorted(found) == [*numbers][: thumbnails.MAX_FACES]
    assert thumbnails.strongest("gone.mp4", 0, {0: rows(0)}, {0: events()}) == {}
