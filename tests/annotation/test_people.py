"""Identities in drawn video calls: no face_id passes from one person to another, for any split into segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from aupipe.annotation.extract import extract
from aupipe.annotation.inputs import Input
from aupipe.annotation.schema import BOX, FEATURES
from aupipe.annotation.segments import Segment, cut_into_segments
from aupipe.annotation.tracks import link_faces
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.face_stream import detect_stream
from aupipe.faces.search import SearchConfig
from aupipe.faces.track import TrackingConfig
from aupipe.media.frames import Frame, Span, frames
from aupipe.media.probe import probe
from harness.clips import write_clip
from harness.people import Layout, call, faults, gallery, person_at, textured

pytestmark = pytest.mark.unit
TRACKING = TrackingConfig()
GRID = (3, 2)
EVERY = SearchConfig().every


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(DetectorConfig())


def rows_of(images: Sequence[np.ndarray | None], detector: Detector, step: int = 1) -> list[dict]:
    """Return `frame`, `box` and `face_id` of every face, from the images of every `step`-th frame (None: lost)."""
    shown = [Frame(i, i / 25, image) for i, image in enumerate(images) if i % step == 0]
    span = Span(len(images), True)
    tracking = TrackingConfig(max_gap_s=max(1.0, 1.5 * step / 25))
    parts = extract(Segment("x", "x", 0, 0, None, span), shown, detector, 4, ARCFACE_TEMPLATE[None], tracking, EVERY)
    table = pa.concat_tables([part.rows for part in parts])
    ids = link_faces(table, tracking)
    return [
        {"frame": row["frame"], "box": [row[name] for name in BOX], "face_id": int(face)}
        for row, face in zip(table.to_pylist(), ids, strict=True) if face >= 0
    ]  # fmt: skip


def tables_of(clip: Path, detector: Detector, tracking: TrackingConfig) -> dict[int, pa.Table]:
    """Return the features of a video that is read as one segment, and as many, by the number of segments."""
    tables = {}
    for segment_s in (1e9, 0.2, 0.5):
        segments = cut_into_segments(
            Input(str(clip), "v"), probe(str(clip)), segment_s, 4, max_gap_s=tracking.max_gap_s, search_every=EVERY
        )
        parts = [
            part.rows for s in segments
            for part in extract(s, frames(s.uri, s.span), detector, 4, ARCFACE_TEMPLATE[None], tracking, EVERY)
        ]  # fmt: skip
        tables[len(segments)] = pa.concat_tables(parts)
    return tables


def check(layouts: Sequence[Layout], detector: Detector, grid: tuple[int, int] = GRID, step: int = 1) -> int:
    """Assert that no two people share an id, and that nobody who stays gets another id. Return the number of ids."""
    rows = rows_of(call(layouts, grid), detector, step)
    assert len(rows) >= 0.85 * sum(len(layout) for layout in layouts[::step])  # YuNet misses some drawings
    assert faults(layouts, rows) == (0, 0)
    return len({row["face_id"] for row in rows})


@pytest.mark.parametrize("seed", [0, 12])
def test_a_gallery_that_moves_up(detector: Detector, seed: int) -> None:
    people = list(range(seed, seed + 9))
    assert check([gallery(people)] * 6 + [gallery([*people[:6], *people[7:]])] * 6, detector, (3, 3)) <= 9 + 2


@pytest.mark.parametrize("seed", [0, 7, 14])
@pytest.mark.parametrize("step", [1, 4])
def test_two_swap_places_and_the_speaker_changes_in_one_box(detector: Detector, seed: int, step: int) -> None:
    a, b, c, d = range(seed, seed + 4)
    before, after = {(0, 0): a, (1, 0): b, (2, 0): c}, {(0, 0): b, (1, 0): a, (2, 0): d}
    assert check([before] * 8 + [after] * 8, detector, (3, 1), step) == 6


@pytest.mark.parametrize("length", [2, 4, 8])
@pytest.mark.parametrize("seed", [0, 9])
def test_a_person_who_fades_to_another_one(detector: Detector, length: int, seed: int) -> None:
    people, others = list(range(seed, seed + 6)), list(range(seed + 6, seed + 12))
    frames = 13 + length + 13
    shares = [min(max((number - 12) / length, 0), 1) for number in range(frames)]
    before, after = (textured(call([gallery(each)] * frames, GRID), seed=each[0]) for each in (people, others))
    images = [cv2.addWeighted(a, 1 - b, c, b, 0) for a, b, c in zip(before, shares, after, strict=True)]
    layouts = [gallery(people if share < 0.5 else others) for share in shares]
    rows = [row for row in rows_of(images, detector) if shares[row["frame"]] in (0, 1)]
    assert len(rows) >= 0.85 * 6 * 26
    assert faults(layouts, rows) == (0, 0)


@pytest.mark.parametrize("period", [24, 40])
def test_a_mouth_that_opens_is_no_fade(detector: Detector, period: int) -> None:
    images = textured(call([gallery(range(6))] * 41, GRID), seed=0)
    for number, image in enumerate(images):
        size = (14, round(1 + 6 * (1 - np.cos(2 * np.pi * number / period))))
        for column, row in gallery(range(6)):
            cv2.ellipse(image, (column * 168 + 84, row * 160 + 112), size, 0, 0, 360, (60, 20, 25), -1, cv2.LINE_AA)
    rows = rows_of(images, detector)
    assert len(rows) >= 0.85 * 6 * 41
    assert faults([gallery(range(6))] * 41, rows) == (0, 0)


@pytest.mark.parametrize("seed", [0, 7, 14])
@pytest.mark.parametrize("later", ["away", "another"])
def test_who_stays_in_a_call_keeps_the_id_when_the_other_half_changes(
    detector: Detector, seed: int, later: str
) -> None:
    before: Layout = {(0, 0): seed, (1, 0): seed + 1}
    after: Layout = {(0, 0): seed} if later == "away" else {(0, 0): seed, (1, 0): seed + 2}
    layouts, tile = [before] * 7 + [after] * 7 + [before] * 7, (320, 360)
    rows = rows_of(call(layouts, (2, 1), tile), detector)
    assert len(rows) >= 0.85 * sum(map(len, layouts))
    assert len({row["face_id"] for row in rows if row["box"][0] < tile[0]}) == 1
    assert faults(layouts, [row for row in rows if row["box"][0] < tile[0]], tile) == (0, 0)
    assert faults(layouts, rows, tile)[0] == 0


def test_another_grid_of_smaller_tiles(detector: Detector) -> None:
    large = call([{(0, 0): 1, (1, 0): 2}] * 6, (2, 1), (252, 320))
    small = call([gallery([1, 2, 3, 4, 5])] * 6, GRID)
    rows = rows_of([*large, *small], detector)
    layouts = [gallery([1, 2, 3, 4, 5])] * 6
    later = [row | {"frame": row["frame"] - 6} for row in rows if row["frame"] >= 6]
    assert len(later) == 30
    assert faults(layouts, later) == (0, 0)
    persons: dict[int, set[int]] = {}
    for row in rows:
        x, _, width, _ = row["box"]
        large_one = 1 if x + width / 2 < 252 else 2
        person = large_one if row["frame"] < 6 else person_at(layouts[0], row["box"])
        persons.setdefault(row["face_id"], set()).add(person)
    assert all(len(each) == 1 for each in persons.values())


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(("gap", "same"), [(10, True), (30, False)])
def test_who_comes_back_keeps_the_id_and_who_comes_instead_does_not(
    detector: Detector, gap: int, same: bool, lost: bool
) -> None:
    both, alone, other = gallery([1, 2, 3, 4, 12]), gallery([1, 2, 3, 4]), gallery([1, 2, 3, 4, 13])
    layouts: list[Layout] = [both] * 6 + [alone] * gap + [both] * 6
    images: list[np.ndarray | None] = list(call(layouts, GRID))
    if lost:
        images[8] = images[12] = None
    rows = rows_of(images, detector)
    ids = [{row["face_id"] for row in rows if first <= row["frame"] < first + 6} for first in (0, 6 + gap)]
    assert ids[0] == {0, 1, 2, 3, 4}
    assert (ids[1] == ids[0]) == same
    layouts[6 + gap :] = [other] * 6
    images = list(call(layouts, GRID))
    if lost:
        images[8] = images[12] = None
    rows = rows_of(images, detector)
    assert len({row["face_id"] for row in rows}) == 6
    assert faults(layouts, rows) == (0, 0)


def test_after_lost_frames_a_tile_may_show_another_person(detector: Detector) -> None:
    layouts: list[Layout] = [gallery([1, 2, 3], 3)] * 5 + [gallery([1, 3], 3)] * 5
    images: list[np.ndarray | None] = list(call(layouts, (3, 1)))
    images[4] = images[5] = None
    rows = rows_of(images, detector)
    assert faults(layouts, rows) == (0, 0)
    assert [row["face_id"] for row in rows if row["frame"] == 6 and row["box"][0] < 168] == [
        row["face_id"] for row in rows if row["frame"] == 3 and row["box"][0] < 168
    ]


def test_light_that_changes_keeps_every_id(detector: Detector) -> None:
    layouts = [gallery([1, 2, 3], 3)] * 12
    gains = [1.0] * 4 + [0.6] * 4 + [1.15] * 4
    images = [np.clip(i * g, 0, 255).astype(np.uint8) for i, g in zip(call(layouts, (3, 1)), gains, strict=True)]
    assert faults(layouts, rows_of(images, detector)) == (0, 0)


def test_landmarks_of_two_people_are_never_averaged(detector: Detector) -> None:
    images = call([{(0, 0): 1}] * 8 + [{(0, 0): 2}] * 8, (1, 1))
    both = [points for _, points in detect_stream((Frame(i, i / 25, x) for i, x in enumerate(images)), detector, 4)]
    first, second = (
        [p for _, p in detect_stream((Frame(i, i / 25, x) for i, x in part), detector, 4)]
        for part in (list(enumerate(images))[:8], list(enumerate(images))[8:])
    )
    for number, (got, expected) in enumerate(zip(both, [*first, *second], strict=True)):
        np.testing.assert_array_equal(got, expected, err_msg=f"frame {number}")


def test_what_is_left_is_the_same_however_a_video_is_cut(detector: Detector, tmp_path: Path) -> None:
    people = [1, 2, 3, 4, 5, 0]
    moved = gallery([1, 2, 3, 4, 0])
    away = {place: person for place, person in moved.items() if person != 2}
    layouts = [gallery(people)] * 14 + [moved] * 12 + [away] * 9 + [moved] * 12 + [gallery(people)] * 12
    clip = write_clip(tmp_path / "a.mp4", call(layouts, GRID), options={"g": "6", "bf": "2", "crf": "12"})
    tracking = TrackingConfig(max_gap_s=0.5)
    tables = tables_of(clip, detector, tracking)
    assert len(tables) >= 3
    whole = tables[1]
    assert all(table.equals(whole) for table in tables.values())
    assert any(resumes for resumes in whole["resumes"].to_pylist())
    ids = link_faces(whole, tracking)
    rows = [r | {"face_id": int(i), "box": [r[n] for n in BOX]} for r, i in zip(whole.to_pylist(), ids, strict=True)]
    assert faults(layouts, rows) == (0, 0)


def test_a_face_that_a_cut_leaves_unchanged_is_the_same_however_a_video_is_cut(
    detector: Detector, tmp_path: Path
) -> None:
    layouts: list[Layout] = []
    for number, length in enumerate([9, 3, 1, 6, 4, 2, 8, 5]):  # some cuts are at key frames, and where segments begin
        layouts += [{(0, 0): 0, (1, 0): 1} if number % 2 else {(0, 0): 0}] * length
    clip = write_clip(tmp_path / "a.mp4", call(layouts, (2, 1), (160, 180)), options={"g": "3", "bf": "2", "crf": "12"})
    tables = tables_of(clip, detector, TrackingConfig(max_gap_s=0.2))
    assert len(tables) >= 3
    whole = tables[1]
    assert all(table.equals(whole) for table in tables.values())
    left = whole.filter(np.asarray(whole["box_x"].fill_null(999)) < 80)
    assert sum(left["cut"].to_pylist()) >= 5
    assert left["link"].null_count == 1  # of the first frame


def test_nothing_that_describes_a_face_is_left() -> None:
    assert set(FEATURES.names) - {"frame", "time_s", "status", "detector_score", *BOX, "landmarks"} == {
        "cut", "restart", "link", "resumes", "corrupt", "embedding", "frame_width", "frame_height",
        "pose_yaw", "pose_pitch", "pose_roll", "sharpness",
    }  # fmt: skip
    assert FEATURES.field("link").type == pa.int32()
    assert FEATURES.field("resumes").type == pa.list_(pa.int32())


def test_who_stays_keeps_the_id_when_the_tile_below_goes_dark(detector: Detector) -> None:
    tile = (110, 112)  # so small that a face's surroundings reach into the tile below
    before = gallery([1, 2, 3, 4, 12, 13])
    after = {place: person for place, person in before.items() if person != 4}
    images = call([before] * 5 + [after] * 5, GRID, tile)
    rows = [row for row in rows_of(images, detector) if row["box"][1] + row["box"][3] / 2 < tile[1]]
    assert len(rows) >= 20
    assert faults([before] * 5 + [after] * 5, rows, tile) == (0, 0)
