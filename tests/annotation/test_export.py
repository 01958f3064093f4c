"""Exports: the formats of other tools, with every row and the values of the tables."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from aupipe import facs
from aupipe.affwild2 import submission
from aupipe.annotation import elan
from aupipe.annotation.export import FORMS, check_names, export
from aupipe.annotation.schema import BOX, EVENTS, INTENSITY, PROB, frames_schema
from aupipe.errors import ConfigError
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Export frames 0 to 4: face 0 in 0, 1 and 4, face 1 in 1, no face in 2, and 3 not decoded."""

    def face(frame: int, face_id: int, on: bool) -> dict:
        told = dict.fromkeys(facs.AUS, on) | dict.fromkeys(PROB, 0.9) | dict.fromkeys(INTENSITY, 0.8 if on else 0.1)
        geometry = {"landmarks": [float(n) for n in range(10)], "detector_score": 0.75, "status": "ok"}
        geometry |= {"pose_yaw": 90.0, "pose_pitch": -45.0, "pose_roll": 0.0}
        size = (40.0, 30.0)[face_id]  # of the box; face 0, the larger one, is on the left
        geometry |= dict(zip(BOX, ((10.0, 60.0)[face_id], 10.0, size, size), strict=True)) | {"frame_width": 100}
        return {"frame": frame, "time_s": frame / 25, "face_id": face_id, "votes_raw": [0.5] * 24} | told | geometry

    rows = [face(0, 0, True), face(1, 0, True), face(1, 1, False), {"frame": 2, "time_s": 0.08, "status": "no_face"}]
    rows += [{"frame": 3, "time_s": 0.12, "status": "decode_error"}, face(4, 0, False)]
    rows = [{"video_id": 'deep/a "b".mp4'} | row for row in rows]
    frames = pa.Table.from_pylist(rows, schema=frames_schema(models=2))
    ends = [(0, "AU12", 0.0, 0.04), (0, "AU25", 0.16, 0.16), (1, "AU12", None, None)]
    found = [
        {"video_id": rows[0]["video_id"], "face_id": face, "au": au, "onset_s": onset, "apex_s": onset,
         "offset_s": offset, "peak": 0.9, "mean": 0.8, "onset_frame": 0, "apex_frame": 0, "offset_frame": 1}
        for face, au, onset, offset in ends
    ]  # fmt: skip
    events = pa.Table.from_pylist(found, schema=EVENTS)
    export(Storage(tmp_path), ("csv", "openface", "events", "elan", "abaw"), frames, events)
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
    assert table.loc[:3, "pose_Rx"].tolist() == pytest.approx([-math.pi / 4] * 3 + [math.nan], abs=1e-4, nan_ok=True)
    assert table.loc[0, ["pose_Ry", "pose_Rz"]].tolist() == pytest.approx([math.pi / 2, 0], abs=1e-4)
    for name in ("gaze_angle_x", "pose_Tx", "x_67", "Z_0", "p_33", "AU45_r", "AU28_c"):
        assert table[name].isna().all()


@pytest.mark.parametrize("form", ["csv", "openface", "events"])
def test_headers_can_be_split_at_the_commas(exported: Path, form: str) -> None:
    file = Path(str(exported / 'a "b".mp4.csv').format(form))
    assert file.read_text().splitlines()[0].split(",") == pd.read_csv(file).columns.tolist()


def test_abaw_has_a_file_for_each_person(exported: Path) -> None:
    tracks = {}
    for name in ("", "_left", "_right"):
        text = Path(str(exported / f'a "b"{name}.txt').format("abaw")).read_text()
        assert io.StringIO(text).readline().startswith("AU1,AU2")
        tracks[name] = submission.read_track(text, 5)[:, 6].tolist()
    # Frames without a face take the nearest one; on a tie the earlier one.
    assert tracks == {"": [True, True, True, False, False]} | {
        "_left": [True, True, True, False, False], "_right": [False] * 5
    }  # fmt: skip


def test_abaw_has_one_file_for_a_single_person(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"video_id": "a.mp4", "frame": number, "status": "no_face"} for number in range(3)]
    export(Storage(tmp_path), ("abaw",), pa.Table.from_pylist(rows, schema=frames_schema()), EVENTS.empty_table())
    (file,) = (tmp_path / "export/abaw").iterdir()
    assert file.name == "a.txt"
    assert not submission.read_track(file.read_text(), 3).any()


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_abaw_has_an_au_halfway_between_a_frame_with_it_and_one_without(
    tmp_path: Path, before: bool, after: bool
) -> None:
    face = {"video_id": "a.mp4", "face_id": 0, "status": "ok", "frame_width": 100}
    face |= dict(zip(BOX, (10.0, 10.0, 40.0, 40.0), strict=True))
    rows = [face | {"frame": 0} | dict.fromkeys(facs.AUS, before), face | {"frame": 2} | dict.fromkeys(facs.AUS, after)]
    rows.insert(1, {"video_id": "a.mp4", "frame": 1, "status": "no_face"})
    export(Storage(tmp_path), ("abaw",), pa.Table.from_pylist(rows, schema=frames_schema()), EVENTS.empty_table())
    track = submission.read_track((tmp_path / "export/abaw/a.txt").read_text(), 3)
    assert track[:, 0].tolist() == [before, True, after]


def test_events_are_a_table_of_their_own(exported: Path) -> None:
    table = pd.read_csv(str(exported / 'a "b".mp4.csv').format("events"))
    assert table.columns.tolist() == EVENTS.names
    assert table.au.tolist() == ["AU12", "AU25", "AU12"]


def test_elan_has_a_tier_per_face_and_au(exported: Path) -> None:
    root = ElementTree.parse(str(exported / 'a "b".mp4.eaf').format("elan")).getroot()
    # pympi 1.71 reads no document without it.
    schema = root.get("{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation")
    assert schema == "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
    descriptor = root.find("HEADER/MEDIA_DESCRIPTOR")
    assert descriptor is not None
    assert descriptor.get("RELATIVE_MEDIA_URL") == "./a%20%22b%22.mp4"
    slots = {each.get("TIME_SLOT_ID"): int(each.get("TIME_VALUE", "")) for each in root.iterfind("TIME_ORDER/*")}
    assert list(slots.values()) == sorted(slots.values())
    path = "ANNOTATION/ALIGNABLE_ANNOTATION"
    tiers = {tier.get("TIER_ID"): list(tier.iterfind(path)) for tier in root.iterfind("TIER")}
    spans = {
        name: [(slots[each.get("TIME_SLOT_REF1")], slots[each.get("TIME_SLOT_REF2")]) for each in found]
        for name, found in tiers.items()
    }
    # The last frame lasts 40 ms too. An event without times is left out.
    assert spans == {"face 0 AU12": [(0, 80)], "face 0 AU25": [(160, 200)]}
    assert [each.findtext("ANNOTATION_VALUE") for each in tiers["face 0 AU12"]] == ["0.90"]
    types = {each.get("LINGUISTIC_TYPE_ID") for each in root.iterfind("LINGUISTIC_TYPE")}
    assert {tier.get("LINGUISTIC_TYPE_REF") for tier in root.iterfind("TIER")} == types


def test_time_slots_of_elan_are_in_the_order_of_their_times() -> None:
    """Events are ordered by face and AU, and names of slots as text (ts10 before ts2) by neither."""
    row = {"video_id": "a.mp4", "face_id": 0, "peak": 0.9, "mean": 0.8, "apex_frame": 0}
    onsets_s = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    found = [row | {"au": au, "onset_s": s, "offset_s": s + 2.5} for au, s in zip(facs.AUS, onsets_s, strict=False)]
    document = elan.document("a.mp4", np.arange(0, 12, 0.5), pa.Table.from_pylist(found, schema=EVENTS))
    assert document.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")
    times = [int(each.get("TIME_VALUE", "")) for each in ElementTree.fromstring(document).iterfind("TIME_ORDER/*")]
    assert times == sorted([1000 * s for s in onsets_s] + [1000 * s + 3000 for s in onsets_s])


def test_elan_has_no_times_before_zero() -> None:
    event = {"video_id": "a.avi", "face_id": 0, "au": "AU12", "onset_s": -0.08, "offset_s": 0.0, "peak": 0.9}
    document = elan.document("a.avi", np.arange(-2, 3) / 25, pa.Table.from_pylist([event], schema=EVENTS))
    times = [int(each.get("TIME_VALUE", "")) for each in ElementTree.fromstring(document).iterfind("TIME_ORDER/*")]
    assert times == [0, 40]


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".ts", "video/mp2t"), (".MTS", "video/mp2t"), (".m2ts", "video/mp2t"), (".mkv", "video/x-matroska"),
        (".webm", "video/webm"), (".mov", "video/quicktime"), (".avi", "video/x-msvideo"), (".mpg", "video/mpeg"),
        (".mxf", "application/mxf"), (".wmv", "video/x-ms-wmv"), (".flv", "video/x-flv"), (".3gp", "video/3gpp"),
        (".ogv", "video/ogg"), (".m4v", "video/mp4"), (".mp4", "video/mp4"), (".mod", "video/mpeg"),
        (".png", "image/png"), (".rm", "video/mp4"), ("", "video/mp4"),
    ],
)  # fmt: skip
def test_elan_names_the_type_of_the_media(suffix: str, expected: str) -> None:
    root = ElementTree.fromstring(elan.document(f"b/a{suffix}", np.array([0.0]), EVENTS.empty_table()))
    descriptor = root.find("HEADER/MEDIA_DESCRIPTOR")
    assert descriptor is not None
    assert descriptor.get("MIME_TYPE") == expected


@pytest.mark.parametrize("first", [0, 50])  # of the rows; 50: a part of the video
@pytest.mark.parametrize(
    ("suffix", "begin_s"), [(".ts", 0), (".MTS", 0), (".mpg", 0), (".mp4", 95_441.72), (".mkv", 95_441.72)]
)
def test_elan_counts_from_the_first_frame_of_mpeg_streams(suffix: str, begin_s: float, first: int) -> None:
    video_id = f"a{suffix}"
    times = [95_441.72 + frame / 25 for frame in range(first, first + 10)]
    rows = [{"video_id": video_id, "frame": first + n, "time_s": time} for n, time in enumerate(times)]
    event = {
        "video_id": video_id,
        "face_id": 0,
        "au": "AU12",
        "onset_s": times[2],
        "apex_s": times[2],
        "offset_s": times[4],
    }
    event |= {"peak": 0.9, "mean": 0.8, "onset_frame": first + 2, "apex_frame": first + 2, "offset_frame": first + 4}
    frames = pa.Table.from_pylist(rows, schema=frames_schema(models=1))
    (document,) = FORMS["elan"](frames, pa.Table.from_pylist([event], schema=EVENTS)).values()
    slots = [int(each.get("TIME_VALUE", "")) for each in ElementTree.fromstring(document).iterfind("TIME_ORDER/*")]
    onset_ms = 1000 * begin_s + 40 * (first + 2)
    assert slots == pytest.approx([onset_ms, onset_ms + 120], abs=1)


def test_the_longest_names_find_a_place_and_do_not_meet(tmp_path: Path) -> None:
    ids = [f"{'ü' * 120}{number}xxxxxxxxx.mp4" for number in range(2)]
    assert {len(video_id.encode()) for video_id in ids} == {254}
    for video_id in ids:
        rows = [{"video_id": video_id, "frame": 0, "time_s": 0.0, "status": "no_face"}]
        export(Storage(tmp_path), ("csv",), pa.Table.from_pylist(rows, schema=frames_schema()), EVENTS.empty_table())
    names = [path.name for path in (tmp_path / "export" / "csv").iterdir()]
    assert len(names) == 2
    assert all(name.endswith(".csv") for name in names)


@pytest.mark.parametrize(
    ("forms", "ids"),
    [
        (("abaw",), ("a/clip.mkv", "a/clip.mp4")),
        (("csv", "abaw"), ("clip.mp4", "clip_left.mp4")),
        (("abaw",), ("clip_right.mp4", "clip.mp4")),
        (("csv",), ("a/clip.mp4", "a//clip.mp4")),  # two ids of a manifest
    ],
)
def test_two_videos_with_files_of_one_name_are_refused(forms: tuple[str, ...], ids: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"would have the same name; fix: ") as error:
        check_names(forms, ids)
    assert all(video_id in str(error.value) for video_id in ids)


def test_videos_with_files_of_different_names_are_accepted() -> None:
    check_names(FORMS, ["a/clip.mp4", "b/clip.mkv", "b/clip_left.mp4/x.mp4", "clip_left.mp4", "clip_right.mp4"])
    check_names(set(FORMS) - {"abaw"}, ["clip.mkv", "clip.mp4", "clip_left.mp4"])
