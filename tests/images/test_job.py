"""Images to a store without a cluster."""

import os
import struct

import cv2
import numpy as np
import pytest

from aupipe.data import samples
from aupipe.data.splits import SplitPart
from aupipe.errors import DatasetError, ManifestError
from aupipe.evaluation.predictions import Predictions
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.facestore import jpeg
from aupipe.facestore.read import FaceStore
from aupipe.images import job as jobs
from aupipe.images.pack import as_crop
from aupipe.models.sliding_window import plan_windows
from aupipe.storage import Storage
from harness.clips import scene

pytestmark = pytest.mark.unit

CROP = np.full((112, 112, 3), 90, np.uint8)


def make(data, out):
    job = jobs.prepare(str(data), str(out), jobs.ImagesConfig())
    for file in job.files():
        Storage(out).write(file.name, file.make())
    return job.complete(), FaceStore.open(str(out))


def rows_of(index, split="train"):
    return [row for group in index.row_groups(split) for row in index.read(group).to_pylist()]


def test_a_crop_with_a_damaged_scan_is_no_picture(tmp_path):
    data = jpeg.encode(np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8))
    (tmp_path / "m.csv").write_text("path,AU25\ncrop.jpg,1\ndamaged.jpg,1\n")
    (tmp_path / "crop.jpg").write_bytes(data)
    (tmp_path / "damaged.jpg").write_bytes(data[:170] + bytes(len(data) - 172) + data[-2:])
    card, index = make(tmp_path / "m.csv", tmp_path / "store")
    assert card.annotations == {"images.rows": 2, "images.kept": 1, "images.no_picture": 1}
    assert [row["image"] for row in rows_of(index)] == [data]


def test_a_manifest_becomes_a_store(tmp_path):
    (tmp_path / "m.csv").write_text(
        "path,subject,AU25,expression,identity,split\n"
        "crop.jpg,s2,1,Fear,9,\n"
        "crop.png,s1,0,,8,\n"
        "wall.jpg,s1,1,,8,\n"
        "text.jpg,s1,1,,8,\n"
        "gone.jpg,s1,1,,8,\n"
        f"{tmp_path}/crop.jpg,s3,-1,Neutral,,validation\n"
    )
    (tmp_path / "crop.jpg").write_bytes(jpeg.encode(CROP))
    cv2.imwrite(str(tmp_path / "crop.png"), CROP)
    cv2.imwrite(str(tmp_path / "wall.jpg"), np.full((300, 200, 3), 80, np.uint8))
    (tmp_path / "text.jpg").write_text("no picture")
    card, index = make(tmp_path / "m.csv", tmp_path / "store")
    found = [(r["video_id"], r["frame"], r["au"][10], r["expression"], r["identity"]) for r in rows_of(index)]
    assert found == [("s1", 1, 0, -1, "8"), ("s2", 1, 1, 3, "9")]
    assert rows_of(index)[1]["image"] == jpeg.encode(CROP)
    assert [row["identity"] for row in rows_of(index, "validation")] == [None]
    assert card.annotations == {
        "images.rows": 6, "images.kept": 3, "images.no_face": 1, "images.no_file": 1, "images.no_picture": 1,
    }  # fmt: skip
    assert card.mismatches == {"s1": {"images.no_face": 1, "images.no_file": 1, "images.no_picture": 1}}
    assert (card.n_expressions, card.source) == (8, "images:manifest")


def test_a_face_below_the_requested_size_has_no_crop():
    photo = cv2.imencode(".png", cv2.cvtColor(scene(1)[0], cv2.COLOR_RGB2BGR))[1].tobytes()
    assert as_crop(photo, Detector(DetectorConfig()))[1] == "kept"
    assert as_crop(photo, Detector(DetectorConfig(min_face_px=200))) == (None, "face_too_small")


def test_folders_become_identities(tmp_path):
    for person in ("anna", "bert"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "faces" / person / f"{number}.jpg").write_bytes(jpeg.encode(CROP + number))
    card, index = make(tmp_path / "faces", tmp_path / "store")
    assert [(row["identity"], row["frame"]) for row in rows_of(index)] == [
        (p, n) for p in ("anna", "bert") for n in (1, 2, 3)
    ]
    assert card.n_expressions == 0
    assert card.positive_rates["AU01"] is None


def test_records_become_identities_and_only_a_damaged_one_is_lost(tmp_path):
    data, index = b"", []
    for number, (labels, image) in enumerate(
        [((5.0, 6.0), b""), *[((who,), jpeg.encode(CROP)) for who in (0, 0, 3, 3)]]
    ):
        body = struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", *labels) if number == 0 else b""
        body = body or struct.pack("<IfQQ", 0, labels[0], 0, 0)
        index.append(f"{number}\t{len(data)}\n")
        content = body + image
        data += (
            struct.pack("<II", 0xCED7230A if number != 2 else 1, len(content)) + content + b"\0" * (-len(content) % 4)
        )
    (tmp_path / "train.rec").write_bytes(data)
    (tmp_path / "train.idx").write_text("".join(index))
    card, index = make(tmp_path, tmp_path / "store")
    assert [(row["identity"], row["frame"]) for row in rows_of(index)] == [
        ("00000000", 1),
        ("00000003", 3),
        ("00000003", 4),
    ]
    assert card.annotations == {"images.rows": 4, "images.kept": 3, "images.damaged": 1}
    assert "no record at byte" in card.bad_lines[0]


def parts(data, out):
    """Return the names of the parts that a run makes, and of those that exist."""
    job = jobs.prepare(str(data), str(out), jobs.ImagesConfig())
    return {file.name for file in job.files()}, set(Storage(out).names("split=train"))


def test_only_parts_with_an_image_that_was_supplied_later_or_replaced_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "FILE_ROWS", 2)
    data, out = tmp_path / "m.csv", tmp_path / "store"
    data.write_text("path,subject,AU12\n" + "".join(f"{n}.jpg,s{n},1\n" for n in range(6)))
    for number in (0, 1, 2, 4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg.encode(CROP + number))
    card, _ = make(data, out)
    assert card.annotations == {"images.rows": 6, "images.kept": 4, "images.no_file": 2}
    named, existing = parts(data, out)
    assert named == existing
    (tmp_path / "3.jpg").write_bytes(jpeg.encode(CROP + 3))
    named, existing = parts(data, out)
    assert len(named - existing) == 1
    card, _ = make(data, out)
    assert card.annotations == {"images.rows": 6, "images.kept": 5, "images.no_file": 1}
    (tmp_path / "0.jpg").write_bytes(jpeg.encode(CROP + 9))
    os.utime(tmp_path / "0.jpg", (1, 1))
    named, existing = parts(data, out)
    assert len(named - existing) == 1
    _, index = make(data, out)
    assert rows_of(index)[0]["image"] == jpeg.encode(CROP + 9)


@pytest.mark.parametrize("place", ["pack.METHOD", "detect.METHOD"])
def test_parts_that_an_earlier_version_made_in_another_way_are_made_again(tmp_path, monkeypatch, place):
    test_folders_become_identities(tmp_path)
    named, existing = parts(tmp_path / "faces", tmp_path / "store")
    assert named == existing
    monkeypatch.setattr(f"aupipe.images.job.{place}", "another")
    assert parts(tmp_path / "faces", tmp_path / "store")[0].isdisjoint(existing)


def test_a_record_file_that_was_completed_is_packed_again(tmp_path):
    test_records_become_identities_and_only_a_damaged_one_is_lost(tmp_path)
    data = bytearray((tmp_path / "train.rec").read_bytes())
    named, existing = parts(tmp_path, tmp_path / "store")
    assert named == existing
    damaged = int((tmp_path / "train.idx").read_text().splitlines()[2].split()[1])
    data[damaged : damaged + 4] = struct.pack("<I", 0xCED7230A)
    (tmp_path / "train.rec").write_bytes(data)
    card, _ = make(tmp_path, tmp_path / "store")
    assert card.annotations == {"images.rows": 4, "images.kept": 4}
    assert parts(tmp_path, tmp_path / "store")[0].isdisjoint(named)


def test_large_sets_are_cut_into_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "FILE_ROWS", 2)
    test_folders_become_identities(tmp_path)
    assert len(list(tmp_path.glob("store/split=train/*.parquet"))) == 3


def test_unreadable_input_is_reported(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        jobs.prepare(str(tmp_path / "none.csv"), str(tmp_path), jobs.ImagesConfig())
    with pytest.raises(DatasetError, match="no such folder"):
        jobs.prepare(str(tmp_path / "none"), str(tmp_path), jobs.ImagesConfig())


@pytest.mark.parametrize("source", ["images:manifest", "images:bp4d"])
def test_images_of_a_person_are_smoothed_and_windowed_only_if_they_are_frames_of_a_video(tmp_path, source):
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg.encode(CROP + number))
    (tmp_path / "m.csv").write_text("path,subject,AU12\n" + "".join(f"{n}.jpg,anna,{n % 2}\n" for n in range(6)))
    make(tmp_path / "m.csv", tmp_path / "store")
    card = tmp_path / "store/store.json"
    card.write_text(card.read_text().replace("images:manifest", source))
    index = FaceStore.open(str(tmp_path / "store"))
    rows = samples.rows_of(index, SplitPart("train"))
    raw = Predictions.of(rows, (rows["frame"].to_numpy() % 2)[:, None].repeat(12, axis=1))
    separate = source == "images:manifest"
    assert (raw.smoothed(2).probabilities == raw.probabilities).all() == separate
    assert len(plan_windows(samples.tracks("train", rows).time_s, 3, 0.0)) == (6 if separate else 2)
    added = index.with_extra_stores([index]).labels("train")
    assert added["time_s"].to_pylist() == [None if not separate else 60.0 * n for n in range(1, 7)] * 2
