"""Packing images into parts of the store: 112×112 JPEGs unchanged, all other images through detector and aligner."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import ARCFACE_TEMPLATE, crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.facestore import jpeg
from aupipe.facestore.columns import intensities, labels
from aupipe.facestore.write import ShardWriter, rows
from aupipe.images import records
from aupipe.storage import Storage, is_uri, open_input

KEPT = "kept"
# Part of the name of every shard. Change it when the same images and settings give other crops.
METHOD = 2


def pack_table(
    table: pa.Table, *, root: str, detector: DetectorConfig, source: str, template: np.ndarray = ARCFACE_TEMPLATE
) -> bytes:
    """Return the part of some rows of `manifest.TABLE`, sorted by subject.

    Args:
        root: folder of relative paths.
        template: (5, 2) points that images are aligned to.
    """
    finder = Detector(detector)
    part = ShardWriter()
    entries = table.select(["path", "subject", "number", "identity", "expression"]).to_pylist()
    au, intensity = labels(table), intensities(table)
    for subject, group in itertools.groupby(range(len(entries)), key=lambda row: entries[row]["subject"]):
        images: list[bytes] = []
        kept: list[int] = []
        tally: Counter[str] = Counter()
        for row in group:
            image, outcome = as_crop(_read(root, entries[row]["path"]), finder, template)
            tally.update({"images.rows": 1, f"images.{outcome}": 1})
            if image is not None:
                images.append(image)
                kept.append(row)
        # One table per identity; a subject normally has one identity.
        for identity, same in itertools.groupby(range(len(kept)), key=lambda at: entries[kept[at]]["identity"]):
            places = list(same)
            chosen = [kept[at] for at in places]
            part.add(
                rows(
                    video_id=subject,
                    frames=[entries[row]["number"] for row in chosen],
                    images=[images[at] for at in places],
                    au=au[chosen],
                    expression=np.array([entries[row]["expression"] for row in chosen]),
                    intensity=None if intensity is None else intensity[chosen],
                    identity=identity,
                    source=source,
                )
            )
        part.count_outcomes(subject, tally)
    return part.finish()


def pack_records(
    offsets: npt.NDArray[np.int64], *, first: int, root: str, detector: DetectorConfig, source: str,
    template: np.ndarray = ARCFACE_TEMPLATE,
) -> bytes:  # fmt: skip
    """Return the part of the records at `offsets` of a train.rec, numbered from `first`; frame = record number."""
    finder = Detector(detector)
    part = ShardWriter()
    tally: Counter[str] = Counter()
    problems: list[str] = []

    def whole() -> Iterator[records.Record]:
        for record in records.read(Storage(root), offsets, first):
            if isinstance(record, DatasetError):
                problems.append(str(record))
            else:
                yield record

    for identity, group in itertools.groupby(whole(), key=lambda record: record.identity):
        images, numbers = [], []
        for record in group:
            image, outcome = as_crop(record.image, finder, template)
            tally.update({"images.rows": 1, f"images.{outcome}": 1})
            if image is not None:
                images.append(image)
                numbers.append(record.number)
        name = f"{identity:08d}"
        part.add(_unlabeled(name, numbers, images, source))
    tally.update({"images.rows": len(problems), "images.damaged": len(problems)})
    part.count_outcomes(f"records {first} to {first + len(offsets) - 1}", tally, problems)
    return part.finish()


def as_crop(
    data: bytes | None, detector: Detector, template: np.ndarray = ARCFACE_TEMPLATE
) -> tuple[bytes | None, str]:
    """Return (JPEG crop, KEPT), or (None, the reason why there is no crop)."""
    if data is None:
        return None, "no_file"
    image = jpeg.decode(data)
    if image is None:
        return None, "no_picture"
    if image.shape[:2] == (CROP_SIZE_PX, CROP_SIZE_PX):
        return data if jpeg.size(data) == (CROP_SIZE_PX, CROP_SIZE_PX) else jpeg.encode(image), KEPT
    faces = detector.detect(image)
    if not len(faces):
        return None, "no_face"
    largest = int(np.argmax(faces.boxes[:, 2] * faces.boxes[:, 3]))
    if detector.config.is_too_small(faces.boxes[largest]):
        return None, "face_too_small"
    return jpeg.encode(crop(image, faces.landmarks[largest], template)), KEPT


def _unlabeled(identity: str, numbers: Sequence[int], images: Sequence[bytes], source: str) -> pa.Table:
    au = np.full((len(images), len(facs.AUS)), facs.UNKNOWN, np.int8)
    expression = np.full(len(images), facs.UNKNOWN, np.int8)
    return rows(
        video_id=identity, frames=numbers, images=images, au=au, expression=expression, identity=identity, source=source
    )


def full_path(root: str, path: str) -> str:
    """Return the path or URI of an image; relative paths are below `root`."""
    return path if is_uri(path) or path.startswith("/") else f"{root}/{path}"


def _read(root: str, path: str) -> bytes | None:
    """Return the content of a file; None if it does not exist."""
    try:
        with open_input(full_path(root, path)) as file:
            return bytes(file.read())
    except (FileNotFoundError, IsADirectoryError):
        return None
