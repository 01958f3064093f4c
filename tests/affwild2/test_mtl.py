"""The multi-task files of ABAW3, ABAW4 and ABAW7: every labeled frame is in the store with its labels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from aupipe import facs
from aupipe.affwild2 import job as jobs
from aupipe.affwild2 import mtl
from aupipe.affwild2.layout import read_layout
from aupipe.config import load
from aupipe.errors import DatasetError
from aupipe.facestore.read import FaceStore
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

TRAIN = "training_set_annotations.txt"
NONE = ",".join(["-1"] * 12)


def on(*numbers: int) -> str:
    return ",".join(str(int(number in numbers)) for number in facs.AU_NUMBERS)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "s-Aff-Wild2" / "annotations"
    folder.mkdir(parents=True)
    lines = [
        "image,valence,arousal,expression,aus",
        f"a_left/00002.jpg,0.1,-0.2,3,{on(1, 26)}",
        f"a_left/00004.jpg,-5,-5,-1,{on(12)},",
        f"b/00001.jpg,0.5,0.5,7,{NONE}",
        f"b/00003.jpg,0.5,0.5,9,{on()}",
        "b/00005.jpg,0.5,0.5,1,0,0",
        f"b/00006.jpg,0.5,0.5,0,{on(4).replace('0', '-1', 1)}",
        f"b/00007.jpg,0.5,0.5,0,{on(4)}",
    ]
    (folder / TRAIN).write_bytes(("\r\n".join(lines) + "\r\n").encode())
    names = ",".join(facs.AFFWILD2_AUS)
    (folder / "validation_set_annotations.txt").write_text(
        f"image,valence,arousal,expression,{names}\nc/00001.jpg,0,0,2,{on(6)}\n"
    )
    (folder / f"._{TRAIN}").write_bytes(b"\0")
    for track, frames in (("a_left", [1, 2, 3, 4]), ("b", [1, 3, 5, 6]), ("c", [1])):
        crops = tmp_path / "s-Aff-Wild2/cropped_aligned_images/batch1" / track
        crops.mkdir(parents=True)
        for frame in frames:
            cv2.imwrite(str(crops / f"{frame:05d}.jpg"), np.full((112, 112, 3), frame, np.uint8))
    return folder.parent


def test_labeled_frames_are_packed_with_both_labels(root, tmp_path):
    made = jobs.prepare(str(root), str(tmp_path / "store"), None, load(jobs.PreprocessConfig, {}, []))
    assert (made.layout.edition, made.source) == ("mtl", "crops")
    for task in made.files():
        Storage(tmp_path / "store").write(task.name, task.make())
    card = made.complete()
    index = FaceStore.open(str(tmp_path / "store"))
    found = [
        (row["video_id"], row["person"], row["frame"], row["expression"], [facs.AU_NUMBERS[i] for i in
         np.flatnonzero(np.array(row["au"]) == 1)], min(row["au"]))
        for split in ("train", "validation") for row in index.labels(split).to_pylist()
    ]  # fmt: skip
    assert found == [
        ("a", "left", 2, 3, [1, 26], 0), ("a", "left", 4, -1, [12], 0), ("b", "", 1, 7, [], -1),
        ("b", "", 6, 0, [], -1),
        ("c", "", 1, 2, [6], 0),
    ]  # fmt: skip
    assert [line.split(TRAIN)[1].split(" ")[0] for line in card.bad_lines] == [":5", ":6"]
    assert card.mismatches["b"]["au.bad_line"] == card.mismatches["b"]["expr.bad_line"] == 2
    assert card.mismatches["b"]["expr.no_crop"] == 1
    assert card.n_expressions == 8
    for task in ("au", "expr"):
        parts = {key: count for key, count in card.annotations.items() if key.startswith(f"{task}.")}
        assert parts.pop(f"{task}.rows") == sum(parts.values())


def test_other_files_and_two_kinds_of_annotations_are_refused(root):
    file = root / "annotations" / TRAIN
    text = file.read_text()
    file.write_text("image,valence,arousal\n")
    with pytest.raises(
        DatasetError, match=r"training_set_annotations.txt: header .*image,valence,arousal,expression,aus"
    ):
        read_layout(str(root))
    mtl._read.cache_clear()
    file.write_text(text + "00001.jpg,0,0,0\n")
    with pytest.raises(DatasetError, match=r"image '00001.jpg' \(TRACK/NNNNN.jpg\)"):
        read_layout(str(root))
    mtl._read.cache_clear()
    file.write_text(f"{text}c/{10**19}.jpg,0,0,0,{on()}\n")
    with pytest.raises(DatasetError, match=r"image 'c/1.* \(TRACK/NNNNN.jpg\)"):
        read_layout(str(root))
    mtl._read.cache_clear()
    file.write_text(text)
    (root / "AU_Detection_Challenge/Train_Set").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"multi-task challenge .*data\.edition=mtl"):
        read_layout(str(root))
    assert read_layout(str(root), "mtl").edition == "mtl"
    with file.open("a") as more:
        more.write(f"c/00009.jpg,0,0,0,{on()}\n")
    mtl._read.cache_clear()
    with pytest.raises(DatasetError, match="video c is in two splits"):
        read_layout(str(root), "mtl")
