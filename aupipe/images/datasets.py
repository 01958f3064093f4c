"""Data sets of labeled images, as their authors publish them: BP4D, RAF-DB, Multi-PIE and AffectNet.

| data set  | recognized by                    | labels                                                               |
|-----------|----------------------------------|----------------------------------------------------------------------|
| BP4D      | AU_OCC/F001_T1.csv               | first row: AU numbers; first column: frames; 0, 1 or 9 (not coded)   |
| RAF-DB    | EmoLabel/list_patition_label.txt | lines `train_00001.jpg 5`: 1 Surprise … 7 Neutral                    |
| Multi-PIE | session01/multiview              | session and recording in 001_01_02_051_06.png (Gross et al., 2010)   |
| AffectNet | train_set/{images,annotations},  | 0_exp.npy, or the column expression: 0 Neutral … 7 Contempt, 8 None, |
|           | or training.csv                  | 9 Uncertain, 10 No face                                              |

Archives may be unpacked up to two folders below the root. RAF-DB's test set and AffectNet's validation set become the
split `validation`. RAF-DB's original images are taken where they exist, because its aligned ones follow a template of
their own. Multi-PIE and AffectNet have classes that Aff-Wild2 lacks, so they keep class lists of their own.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from aupipe import facs
from aupipe.errors import DatasetError, ManifestError
from aupipe.hidden_files import is_hidden
from aupipe.images.manifest import IMAGE_SUFFIXES, image_table
from aupipe.manifests import decode_text, split_lines
from aupipe.storage import Storage

Name = Literal["bp4d", "rafdb", "multipie", "affectnet"]

MULTIPIE_EXPRESSIONS = ("Neutral", "Smile", "Surprise", "Squint", "Disgust", "Scream")
AFFECTNET_EXPRESSIONS = (*facs.EXPRESSIONS_ABAW2, "Contempt")

_DEPTH = 2  # folders below the root
_BP4D_TABLE = re.compile(r"([FM]\d{3})_(T\d+)\.csv", re.IGNORECASE)
_BP4D_IMAGE = re.compile(r"(?:.*/)?([FM]\d{3})/(T\d+)/(\d+)\.(?:jpe?g|png|bmp)", re.IGNORECASE)
_BP4D_CODES = {"0": 0, "1": 1, "9": facs.UNKNOWN}
_RAFDB_LISTS = ("list_patition_label.txt", "list_partition_label.txt")  # as published, and with its spelling corrected
_RAFDB_LINE = re.compile(r"((train|test)_\d+)\.jpg\s+([1-7])", re.IGNORECASE)
_RAFDB_ORDER = ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral")  # labels 1 … 7
_MULTIPIE_IMAGE = re.compile(r"(?:.*/)?(\d{3})_(\d\d)_(\d\d)_\d{3}_\d\d\.(?:png|jpe?g)", re.IGNORECASE)
_MULTIPIE_RECORDINGS = {
    ("01", "01"): "Neutral", ("01", "02"): "Smile",
    ("02", "01"): "Neutral", ("02", "02"): "Surprise", ("02", "03"): "Squint",
    ("03", "01"): "Neutral", ("03", "02"): "Smile", ("03", "03"): "Disgust",
    ("04", "01"): "Neutral", ("04", "02"): "Neutral", ("04", "03"): "Scream",
}  # fmt: skip
_AFFECTNET_ORDER = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")  # 0 … 7
_AFFECTNET_OTHERS = {8: "None", 9: "Uncertain", 10: "No face"}
_AFFECTNET_LISTS = (("training.csv", "train"), ("validation.csv", "validation"))
_TRIED = 100  # images of the list that are looked for, because single ones may be missing
_AFFECTNET_SETS = (("train_set", "train"), ("val_set", "validation"))


@dataclass
class _Rows:
    """The columns of `manifest.TABLE`, one entry per image."""

    paths: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    people: list[str | None] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    au: list[np.ndarray] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(
        self, path: str, *, split: str = "train", person: str | None = None,
        expression: int = facs.UNKNOWN, au: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.paths.append(path)
        self.splits.append(split)
        self.subjects.append(person or path)
        self.people.append(person)
        self.classes.append(expression)
        self.au.append(np.full(len(facs.AUS), facs.UNKNOWN, np.int8) if au is None else au)

    def table(self) -> pa.Table:
        au = np.array(self.au, np.int8)
        return image_table(self.paths, self.splits, self.subjects, self.people, self.classes, au)


@dataclass(frozen=True)
class Dataset:
    """A published data set.

    Attributes:
        expressions: names of its classes in label order, those of Aff-Wild2 where it has no others.
        left_out: reason → number of images without a row.
    """

    name: Name
    title: str
    table: pa.Table
    expressions: tuple[str, ...]
    left_out: Mapping[str, int]

    @property
    def license(self) -> str:
        """License of the images, as far as their authors state it in common."""
        return f"{self.title}: research only, under the agreement with its authors"


def detect(storage: Storage) -> tuple[Name, str] | None:
    """Return (key of KINDS, path of its mark) of the data set below a root; None for any other folder.

    Raises:
        DatasetError: there are several data sets.
    """
    found = [(name, path) for path, is_folder in _entries(storage) if (name := _mark(storage, path, is_folder))]
    names = dict(found[::-1])  # of several marks of a data set the first counts
    if len(names) > 1:
        places = " and ".join(f"{KINDS[name].title} ({path})" for name, path in sorted(names.items()))
        raise DatasetError(f"{storage.root}: several data sets, {places}; fix: name the folder of one of them")
    return next(iter(names.items()), None)


def read(storage: Storage, name: Name, mark: str) -> Dataset:
    """Return a data set that `detect` found.

    Raises:
        DatasetError: a label file is invalid, or there are no images.
    """
    kind = KINDS[name]
    rows = kind.read(storage, mark)
    if not rows.paths:
        raise DatasetError(f"{storage.root}: {kind.title} without images; fix: unpack them below this folder")
    return Dataset(name, kind.title, rows.table(), kind.expressions, dict(rows.left_out))


def _entries(storage: Storage) -> list[tuple[str, bool]]:
    """Return (path, whether it is a folder) of the entries down to `_DEPTH` folders below the root, by depth."""
    found, folders = [], [""]
    for depth in range(_DEPTH + 1):
        deeper = []
        for folder in folders:
            names, files = storage.children(folder)
            inside = [(f"{folder}/{name}".lstrip("/"), name) for name in names if not is_hidden(name)]
            deeper += [path for path, _ in inside]
            found += [(path, True) for path, _ in inside]
            found += [(f"{folder}/{name}".lstrip("/"), False) for name in files if not is_hidden(name)]
        # Only folders that may contain a mark are listed at the last depth, because crop folders have many files.
        folders = deeper if depth + 1 < _DEPTH else [path for path in deeper if _base(path).lower() in _MARK_FOLDERS]
    return found


_MARK_FOLDERS = frozenset({"emolabel", "manually_annotated_file_lists"})


def _mark(storage: Storage, path: str, is_folder: bool) -> Name | None:
    """Return the data set that an entry is the mark of."""
    name = _base(path).lower()
    if not is_folder:
        if name in _RAFDB_LISTS and "compound" not in path.lower().split("/"):
            return "rafdb"
        return (
            "affectnet"
            if name == "training.csv" and b"subDirectory_filePath" in storage.read_range(path, 0, 200)
            else None
        )
    if name == "au_occ":
        return "bp4d"
    if re.fullmatch(r"session0[1-4]", name) and "multiview" in storage.children(path)[0]:
        return "multipie"
    if name == "train_set" and {"images", "annotations"} <= set(storage.children(path)[0]):
        return "affectnet"
    return None


def _bp4d(storage: Storage, mark: str) -> _Rows:
    rows, images = _Rows(), dict[tuple[str, str, int], str]()
    for name in storage.names():
        match = _BP4D_IMAGE.fullmatch(name)
        if match is None:
            continue
        key = (match[1].upper(), match[2].upper(), int(match[3]))
        if key in images:
            raise DatasetError(
                f"{storage.root}: two images of {key[0]} {key[1]} frame {key[2]}, {images[key]} and {name}; "
                "fix: name a folder with one of them"
            )
        images[key] = name
    if not images:
        return rows
    for table in storage.children(mark)[1]:
        match = _BP4D_TABLE.fullmatch(table)
        if match is None:
            continue
        person, task = match[1].upper(), match[2].upper()
        for frame, au in _au_codes(storage, f"{mark}/{table}"):
            path = images.get((person, task, frame), f"{person}/{task}/{frame}.jpg")  # a missing file is counted later
            rows.add(path, person=person, au=au)
    return rows


def _au_codes(storage: Storage, name: str) -> list[tuple[int, np.ndarray]]:
    """Return (frame, labels (12,)) of the lines of a table of BP4D; AUs that it lacks are unknown."""
    lines = list(csv.reader(_lines(storage, name)))
    header = [cell.strip() for cell in lines[0]] if lines else []
    columns = {header.index(str(au), 1): place for place, au in enumerate(facs.AU_NUMBERS) if str(au) in header[1:]}
    if not columns:
        raise DatasetError(f"{storage.path(name)}: header {','.join(header)[:80]!r} (0,1,2,4, …: numbers of AUs)")
    found = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        au = np.full(len(facs.AUS), facs.UNKNOWN, np.int8)
        frame = cells[0].strip()
        codes = [cells[column].strip() if column < len(cells) else "" for column in columns]
        if not frame.isdecimal() or not set(codes) <= set(_BP4D_CODES):
            raise DatasetError(f"{storage.path(name)}:{number}: {','.join(cells)[:80]!r} (a frame, then 0, 1 or 9)")
        for place, code in zip(columns.values(), codes, strict=True):
            au[place] = _BP4D_CODES[code]
        found.append((int(frame), au))
    return found


def _rafdb(storage: Storage, mark: str) -> _Rows:
    folder = mark.rpartition("/")[0]
    base = folder.rpartition("/")[0] if _base(folder).lower() == "emolabel" else folder
    images = {_base(name).lower(): name for name in storage.names(base) if name.lower().endswith(IMAGE_SUFFIXES)}
    rows = _Rows()
    for number, line in enumerate(_lines(storage, mark) if images else (), 1):
        if not line.strip():
            continue
        match = _RAFDB_LINE.fullmatch(line.strip())
        if match is None:
            raise DatasetError(f"{storage.path(mark)}:{number}: {line[:80]!r} (train_00001.jpg 5, a label 1 … 7)")
        stem = match[1].lower()
        path = images.get(f"{stem}.jpg") or images.get(f"{stem}_aligned.jpg") or f"{match[1]}.jpg"
        split = "train" if match[2].lower() == "train" else "validation"
        rows.add(path, split=split, expression=facs.EXPRESSIONS.index(_RAFDB_ORDER[int(match[3]) - 1]))
    return rows


def _multipie(storage: Storage, mark: str) -> _Rows:
    rows = _Rows()
    for name in storage.names(mark.rpartition("/")[0]):
        if not name.lower().endswith(IMAGE_SUFFIXES):
            continue
        match = _MULTIPIE_IMAGE.fullmatch(name)
        shown = _MULTIPIE_RECORDINGS.get((match[2], match[3])) if match else None
        if match is None or shown is None:
            rows.left_out["no session, recording and camera in its name"] += 1
        else:
            rows.add(name, person=match[1], expression=MULTIPIE_EXPRESSIONS.index(shown))
    return rows


def _affectnet(storage: Storage, mark: str) -> _Rows:
    above = mark.rpartition("/")[0]
    return _affectnet_lists(storage, above) if mark.endswith(".csv") else _affectnet_sets(storage, above)


def _affectnet_lists(storage: Storage, folder: str) -> _Rows:
    """Read the manually annotated part of 2017."""
    entries: list[tuple[str, str, int, str]] = []  # image, split, expression, place
    for file, split in _AFFECTNET_LISTS:
        name = f"{folder}/{file}".lstrip("/")
        if not storage.exists(name):
            continue
        for number, line in enumerate(csv.DictReader(_lines(storage, name)), 2):
            image, code = line.get("subDirectory_filePath"), (line.get("expression") or "").strip()
            where = f"{storage.path(name)}:{number}"
            if not image or not code.isdecimal():
                raise DatasetError(f"{where}: {image!r} with expression {code!r} (an image, and 0 … 10)")
            entries.append((image, split, int(code), where))
    tops = [f"{path}/" for path, is_folder in _entries(storage) if is_folder] + [""]
    tried = [image for image, *_ in entries[:_TRIED]]
    top = next((top for image in tried for top in tops if storage.exists(f"{top}{image}")), None)
    rows = _Rows()
    for image, split, code, where in entries if top is not None else ():
        _add_affectnet(rows, f"{top}{image}", split, code, where)
    return rows


def _affectnet_sets(storage: Storage, folder: str) -> _Rows:
    """Read the smaller release of 2021, in which each image has its annotation in a NumPy file."""
    rows = _Rows()
    for part, split in _AFFECTNET_SETS:
        base = f"{folder}/{part}".lstrip("/")
        if not storage.exists(f"{base}/images"):
            continue
        annotations = set(storage.children(f"{base}/annotations")[1])
        for image in storage.children(f"{base}/images")[1]:
            label = f"{image.rpartition('.')[0]}_exp.npy"
            if is_hidden(image) or not image.lower().endswith(IMAGE_SUFFIXES):
                continue
            if label not in annotations:
                rows.left_out["no annotation"] += 1
                continue
            where = f"{base}/annotations/{label}"
            try:
                code = int(np.load(io.BytesIO(storage.read(where)), allow_pickle=False).item())
            except (ValueError, EOFError, TypeError) as error:
                raise DatasetError(f"{storage.path(where)}: no expression ({error}); fix: unpack it again") from None
            _add_affectnet(rows, f"{base}/images/{image}", split, code, storage.path(where))
    return rows


def _add_affectnet(rows: _Rows, path: str, split: str, code: int, where: str) -> None:
    if code in _AFFECTNET_OTHERS:
        rows.left_out[_AFFECTNET_OTHERS[code]] += 1
    elif code < len(_AFFECTNET_ORDER):
        rows.add(path, split=split, expression=AFFECTNET_EXPRESSIONS.index(_AFFECTNET_ORDER[code]))
    else:
        raise DatasetError(f"{where}: expression {code} (0 … 10)")


def _lines(storage: Storage, name: str) -> Sequence[str]:
    """Return the lines of a text file.

    Raises:
        DatasetError: it is not text.
    """
    try:
        return split_lines(decode_text(storage.read(name), storage.path(name)))
    except ManifestError as error:
        raise DatasetError(str(error)) from None


def _base(path: str) -> str:
    return path.rpartition("/")[2]


@dataclass(frozen=True)
class _Kind:
    """A data set that can be read."""

    title: str
    expressions: tuple[str, ...]
    read: Callable[[Storage, str], _Rows]  # storage and path of the mark → rows


KINDS: Mapping[Name, _Kind] = {
    "bp4d": _Kind("BP4D", facs.EXPRESSIONS, _bp4d),
    "rafdb": _Kind("RAF-DB", facs.EXPRESSIONS_ABAW2, _rafdb),
    "multipie": _Kind("Multi-PIE", MULTIPIE_EXPRESSIONS, _multipie),
    "affectnet": _Kind("AffectNet", AFFECTNET_EXPRESSIONS, _affectnet),
}
