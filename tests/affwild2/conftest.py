"""Small Aff-Wild2 folders of each edition, with the irregularities of the real one."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from aupipe import facs

AU_HEADER = ",".join(facs.AFFWILD2_AUS)


def jpeg(seed: int, size: int = 112) -> bytes:
    """Return a different JPEG for each seed."""
    image = np.full((size, size, 3), seed % 251, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def video(path: Path, frames: int, rate: int = 25, sound: bool = False) -> None:
    """Write a gray video of `frames` frames, optionally with a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 64
        tone = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index % 250, np.uint8), "rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
        if tone:
            wave = (8000 * np.sin(np.arange(16000 * frames // rate) * 0.2)).astype(np.int16)[None]
            block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            block.sample_rate = 16000
            out.mux(tone.encode(block))
            out.mux(tone.encode())


class Tree:
    """A data set folder under construction."""

    video = staticmethod(video)

    def __init__(self, root: Path, edition: str) -> None:
        self.root, self.edition = root, edition
        old = edition == "abaw2"
        place = root / ("annotations" if old else "5th_ABAW_Annotations")
        names = {"abaw2": "EXPR_Set", "abaw5": "EXPR_Classification_Challenge", "abaw6": "EXPR_Recognition_Challenge"}
        self.folders = {"au": place / ("AU_Set" if old else "AU_Detection_Challenge"), "expr": place / names[edition]}
        self.classes = facs.EXPRESSIONS_ABAW2 if old else facs.EXPRESSIONS
        for folder in self.folders.values():
            for split in ("Train_Set", "Validation_Set"):
                (folder / split).mkdir(parents=True)
                (folder / split / ".DS_Store").write_bytes(b"\0")
        (root / ".DS_Store").write_bytes(b"\0")

    def annotate(self, task: str, split: str, name: str, lines: list[str], header: str | None = None) -> Path:
        default = AU_HEADER if task == "au" else ",".join(self.classes)
        path = self.folders[task] / {"train": "Train_Set", "validation": "Validation_Set"}[split] / f"{name}.txt"
        path.write_text("\n".join([header or default, *lines]) + "\n")
        return path

    def crop(self, name: str, frames: list[int], pack: str = "cropped_aligned") -> None:
        folder = self.root / pack / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".DS_Store").write_bytes(b"\0")
        for frame in frames:
            (folder / f"{frame:05d}.jpg").write_bytes(jpeg(frame))


def au_line(*positive: int) -> str:
    return ",".join("1" if number in positive else "0" for number in facs.AU_NUMBERS)


@pytest.fixture(params=["abaw2", "abaw5", "abaw6"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """Return two training and two validation videos with all irregularities of the data set."""
    tree = Tree(tmp_path / "Aff-Wild2", request.param)
    unknown = ",".join(["-1"] * 12)
    # One line −1 in one column; a row of 11 values; a label of 2; two rows without a crop; a crop that is no JPEG
    lines = [au_line(1), au_line(2, 25), "-1," + "1," * 10 + "1", unknown, au_line(12), "0," * 10 + "0"]
    lines += ["2," + "0," * 10 + "0", au_line(26), au_line(), au_line(4)]
    tree.annotate("au", "train", "10-30-1280x720", lines)
    tree.annotate("expr", "train", "10-30-1280x720", ["0", "1", "2", "-1", "-1", "3", "3", "4", "99", "6", "6", "6"])
    tree.crop("10-30-1280x720", [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 40])
    (tree.root / "cropped_aligned/10-30-1280x720/00008.jpg").write_bytes(b"not a picture")
    (tree.root / "cropped_aligned/10-30-1280x720/00009.jpg").write_bytes(jpeg(9, 96))
    (tree.root / "cropped_aligned/10-30-1280x720/thumb.jpg").write_bytes(jpeg(1))
    video(tree.root / "batch1/10-30-1280x720.mp4", frames=9, sound=True)
    # A pair of people: suffixes only at the end of the name, one video, columns in another order
    turned = ",".join(reversed(facs.AFFWILD2_AUS))
    for person in ("left", "right"):
        flipped = [",".join(reversed(au_line(6 if person == "left" else 15).split(",")))] * 3
        tree.annotate("au", "train", f"a_left_b_{person}", flipped, header=turned)
        tree.crop(f"a_left_b_{person}", [1, 2, 3])
    video(tree.root / "batch2/a_left_b.avi", frames=3)
    # Crops in the extra pack, no video; trains the expression and validates the AUs
    tree.annotate("au", "validation", "video9", [au_line(7)] * 4)
    tree.annotate("expr", "train", "video9", ["5"] * 4)
    tree.crop("video9", [1, 2], "cropped_aligned_new_50_vids")
    tree.crop("video9", [2, 3, 4])
    tree.annotate("au", "validation", "v2", [au_line(10)] * 2)
    tree.annotate("expr", "validation", "v2", ["3"] * 2)
    tree.crop("v2", [1, 2])
    tree.crop("test-video", [1, 2])
    (tree.root / "test_set_AU_Challenge.txt").write_text("test-video\n")
    (tree.root / "dataset.json").write_text(json.dumps({"license": "made by a test"}))
    return tree
