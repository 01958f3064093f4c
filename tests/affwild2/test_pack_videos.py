"""Crops from videos: assignment of faces to people, selection of frames, and independence of cuts."""

import io
from itertools import pairwise

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from aupipe import facs
from aupipe.affwild2 import pack_videos
from aupipe.affwild2.plan import ShardPlan, TrackSlice, VideoSlice
from aupipe.annotation.extract import extract
from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig
from aupipe.faces.detect import NO_FACES, Detections, Detector, DetectorConfig
from aupipe.faces.search import SearchConfig
from aupipe.facestore import jpeg
from aupipe.media.frames import Span, frames
from aupipe.media.probe import probe
from harness.clips import scene, write_clip

pytestmark = pytest.mark.unit

RED, BLUE = (220, 30, 30), (30, 30, 220)


class Blobs:
    """A detector of bright squares as faces, with the best score first as YuNet has."""

    def __init__(self, config):
        self.config = config

    def detect(self, image):
        bright = (image.max(axis=2) > 150).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        boxes = stats[1:, :4].astype(np.float32)
        if not len(boxes):
            return NO_FACES
        points = ARCFACE_TEMPLATE[None] / 112 * boxes[:, None, 2:] + boxes[:, None, :2]
        return Detections(boxes, points.astype(np.float32), np.linspace(1, 0.9, len(boxes), dtype=np.float32))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Write 20 frames with a red face on the left and a blue one on the right; frame 5 has none, frame 8 only blue."""
    monkeypatch.setattr(pack_videos, "Detector", Blobs)
    (tmp_path / "batch1").mkdir()
    with av.open(str(tmp_path / "batch1/pair.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.gop_size = 320, 160, 4
        for frame in range(1, 21):
            picture = np.zeros((160, 320, 3), np.uint8)
            if frame not in (5, 8):
                picture[40:100, 40 + frame : 100 + frame] = RED
            if frame != 5:
                picture[40:100, 200 + frame : 260 + frame] = BLUE
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    lines = ["0," * 11 + "1"] * 22  # two rows more than frames
    lines[1] = ",".join(["-1"] * 12)
    for name in ("pair_left", "pair_right"):
        (tmp_path / f"{name}.txt").write_text("\n".join([",".join(facs.AFFWILD2_AUS), *lines]))
    return tmp_path


def piece(first=0, stop=22, people=("left", "right"), others=()):
    tracks = tuple(TrackSlice(f"pair_{p}", p, (("au", f"pair_{p}.txt"),), ()) for p in people)
    return VideoSlice("pair", tracks, "batch1/pair.mp4", first, stop, others)


def packed(data, *pieces, every=1, **detector):
    unit = ShardPlan("part", "train", pieces)
    made = pack_videos.pack_videos(
        unit, root=str(data), detector=DetectorConfig(**detector), alignment=AlignmentConfig(),
        search=SearchConfig(every=every),
    )  # fmt: skip
    return pq.read_table(io.BytesIO(made)).to_pylist(), pq.ParquetFile(io.BytesIO(made)).metadata.metadata[b"aupipe"]


def test_people_are_assigned_by_position(data):
    rows, footer = packed(data, piece())
    assert [row["frame"] for row in rows if row["person"] == "left"] == [1, 3, 4, 6, 7, *range(9, 21)]
    assert [row["frame"] for row in rows if row["person"] == "right"] == [1, 3, 4, 6, 7, *range(8, 21)]
    for row in rows:
        color = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR_RGB)[56, 56].astype(int)
        assert np.abs(color - (RED if row["person"] == "left" else BLUE)).max() < 30
        assert row["time_s"] == pytest.approx((row["frame"] - 1) / 25)
    assert b'"pair_left": {"au.bad_line": 0, "au.kept": 17, "au.no_face": 2, "au.no_frame": 2' in footer


def test_a_face_below_the_requested_size_has_no_crop(data):
    rows, footer = packed(data, piece(), min_face_px=70)
    assert rows == []
    assert b'"pair_left": {"au.bad_line": 0, "au.face_too_small": 17, "au.no_face": 2' in footer


def test_cutting_a_video_leaves_no_trace(data):
    whole, _ = packed(data, piece())
    cut, _ = packed(data, piece(0, 7), piece(7, 9), piece(9, 22))
    assert sorted(cut, key=lambda row: (row["person"], row["frame"])) == whole


@pytest.mark.parametrize(("person", "other"), [("left", "right"), ("right", "left")])
def test_a_person_has_the_same_crops_without_labels_of_the_other(data, person, other):
    both, _ = packed(data, piece())
    alone, _ = packed(data, piece(people=(person,), others=(other,)))
    assert alone == [row for row in both if row["person"] == person]


@pytest.mark.parametrize("cuts", [(0, 40), (0, 7, 9, 20, 40)])
def test_crops_are_those_of_annotation(cuts, tmp_path):
    (tmp_path / "batch1").mkdir()
    write_clip(tmp_path / "batch1/pair.mp4", scene(40, (320, 240), face=120))
    lines = [",".join(["-1" if 12 <= frame < 24 else "1"] * 12) for frame in range(40)]
    (tmp_path / "pair.txt").write_text("\n".join([",".join(facs.AFFWILD2_AUS), *lines]))
    track = (TrackSlice("pair", "", (("au", "pair.txt"),), ()),)
    pieces = [VideoSlice("pair", track, "batch1/pair.mp4", first, stop) for first, stop in pairwise(cuts)]
    config = AnnotateConfig()
    rows, _ = packed(tmp_path, *pieces, every=config.search.every)
    video = str(tmp_path / "batch1/pair.mp4")
    whole = Segment(video, "pair", 0, 0, None, Span.whole(probe(video)))
    found = extract(
        whole, frames(video, whole.span), Detector(config.detector), config.alignment.smoothing_radius,
        ARCFACE_TEMPLATE[None], config.effective_tracking, config.search.every,
    )  # fmt: skip
    crops = [jpeg.encode(crop[0]) for part in found for crop in part.crops]
    assert len(crops) == 40
    assert [row["frame"] for row in rows] == [*range(1, 13), *range(25, 41)]
    assert [row["image"] for row in rows] == [*crops[:12], *crops[24:]]


@pytest.mark.parametrize(
    ("xs", "people", "expected"),
    [
        ([10, 200], ("left", "right"), {"left": 0, "right": 1}),
        ([200, 10], ("left", "right"), {"left": 1, "right": 0}),
        ([200, 10], ("", "right"), {"": 1, "right": 0}),
        ([10, 200], ("", "left"), {"": 1, "left": 0}),
        ([200], ("left", "right"), {"right": 0}),
        ([200], ("", "right"), {"right": 0}),
        ([10], ("right",), {}),
        ([], ("",), {}),
        ([], ("left",), {}),
    ],
)
def test_pick(xs, people, expected):
    boxes = np.array([[x, 0, 50, 50] for x in xs], np.float32).reshape(-1, 4)
    faces = Detections(boxes, np.zeros((len(xs), 5, 2), np.float32), np.ones(len(xs), np.float32))
    assert pack_videos.pick(faces, people, 160) == expected


def test_a_single_person_has_the_largest_face():
    boxes = np.array([[0, 0, 20, 20], [50, 0, 60, 60]], np.float32)
    faces = Detections(boxes, np.zeros((2, 5, 2), np.float32), np.ones(2, np.float32))
    assert pack_videos.pick(faces, ("",), 160) == {"": 1}
