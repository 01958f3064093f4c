"""Tiny copies of published data sets, Aff-Wild2 among them: folders, label files and names, with noise as images."""

import struct
from pathlib import Path

import cv2
import numpy as np

from aupipe import facs

BP4D_AUS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 27, 28)


def write_image(path: Path, rng: np.random.Generator, size_px: int = 112) -> Path:
    """Write noise as a JPEG or PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = rng.integers(60, 120, (size_px, size_px, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, noise)[1].tobytes())
    return path


def bp4d(root: Path, people: int = 3, frames: int = 6) -> Path:
    """Write AUCoding/AU_OCC/F001_T1.csv … and 2D/F001/T1/0011.jpg …; each third code is 9, the last image absent."""
    rng = np.random.default_rng(0)
    for number in range(1, people + 1):
        for task in ("T1", "T2"):
            lines = [",".join(map(str, (0, *BP4D_AUS)))]
            for frame in range(11, 11 + frames):
                codes = [(9, 0, 1)[(frame + au) % 3] for au in BP4D_AUS]
                lines.append(",".join(map(str, (frame, *codes))))
                if frame < 10 + frames:
                    write_image(root / f"2D/F{number:03d}/{task}/{frame:04d}.jpg", rng)
            table = root / f"AUCoding/AU_OCC/F{number:03d}_{task}.csv"
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text("\r\n".join(lines) + "\r\n")
    return root


def rafdb(root: Path, each: int = 2) -> Path:
    """Write basic/EmoLabel/list_patition_label.txt and images; also the compound set, which is not read."""
    rng = np.random.default_rng(1)
    lines = []
    for split in ("train", "test"):
        for number in range(7 * each):
            name = f"{split}_{number + 1:05d}"
            lines.append(f"{name}.jpg {number % 7 + 1}")
            write_image(root / f"basic/Image/aligned/{name}_aligned.jpg", rng)
            if number:
                write_image(root / f"basic/Image/original/{name}.jpg", rng)
    for part, text in (("basic", "\n".join(lines)), ("compound", "train_00001.jpg 11")):
        (root / part / "EmoLabel").mkdir(parents=True)
        (root / part / "EmoLabel/list_patition_label.txt").write_text(text)
    return root


def multipie(root: Path, people: int = 5) -> Path:
    """Write data/session01/multiview/001/01/05_1/001_01_01_051_06.png … of every session and recording."""
    rng = np.random.default_rng(2)
    for person in range(1, people + 1):
        for session, recordings in ((1, 2), (2, 3), (3, 3), (4, 3)):
            for recording in range(1, recordings + 1):
                folder = root / f"data/session{session:02d}/multiview/{person:03d}/{recording:02d}/05_1"
                write_image(folder / f"{person:03d}_{session:02d}_{recording:02d}_051_06.png", rng)
    return root


def affectnet(root: Path, images: int = 16) -> Path:
    """Write train_set and val_set, each with images/7.jpg and annotations/7_exp.npy."""
    rng = np.random.default_rng(3)
    for part in ("train_set", "val_set"):
        for number in range(images):
            write_image(root / part / f"images/{number}.jpg", rng)
            (root / part / "annotations").mkdir(exist_ok=True)
            np.save(root / part / f"annotations/{number}_exp.npy", np.array(str(number % 8)))
    return root


def affectnet_lists(root: Path) -> Path:
    """Write the lists of 2017, with the codes 0 … 10, and their images in subfolders."""
    rng = np.random.default_rng(4)
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    for name, count in (("training", 11), ("validation", 8)):
        lines = [header]
        for code in range(count):
            image = f"{code}/{name}{code}.jpg"
            lines.append(f"{image},1,1,9,9,1.0;2.0,{code},-2,-2")
            write_image(root / "Manually_Annotated_Images" / image, rng)
        folder = root / "Manually_Annotated_file_lists"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return root


def glint360k(root: Path, people: int = 2, each: int = 3) -> Path:
    """Write train.rec and train.idx, with record 0 as InsightFace writes it."""
    rng = np.random.default_rng(5)
    count = people * each
    bodies = [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", count + 1, count + 1 + people)]
    for number in range(count):
        image = rng.integers(60, 120, (112, 112, 3), dtype=np.uint8)
        bodies.append(struct.pack("<IfQQ", 0, number // each, 0, 0) + cv2.imencode(".jpg", image)[1].tobytes())
    data, index = b"", []
    for number, body in enumerate(bodies):
        index.append(f"{number}\t{len(data)}\n")
        data += struct.pack("<II", 0xCED7230A, len(body)) + body + b"\0" * (-len(body) % 4)
    root.mkdir(parents=True)
    (root / "train.rec").write_bytes(data)
    (root / "train.idx").write_text("".join(index))
    return root


def aff_wild2(root: Path, edition: str, frames: int = 30) -> Path:
    """Write labels of both tasks and crops of five videos, of which `both` is in train for AUs alone."""
    rng = np.random.default_rng(6)
    old = edition == "abaw2"
    tasks = ("AU_Set", "EXPR_Set") if old else ("AU_Detection_Challenge", "EXPR_Classification_Challenge")
    headers = (",".join(facs.AFFWILD2_AUS), ",".join(facs.EXPRESSIONS[: 7 if old else 8]))
    for video in ("a", "b", "c", "d", "both"):
        splits = ["Validation_Set" if video == "d" else "Train_Set"] * 2
        splits[1] = "Validation_Set" if video == "both" else splits[1]
        au = [",".join("01"[(n + frame) % 2] for n in range(12)) for frame in range(frames)]
        for task, header, split, lines in zip(
            tasks, headers, splits, (au, [str(frame % 7) for frame in range(frames)]), strict=True
        ):
            file = root / "annotations" / task / split / f"{video}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join([header, *lines]) + "\n")
        for frame in range(1, frames + 1):
            write_image(root / f"cropped_aligned/{video}/{frame:05d}.jpg", rng)
    return root
