"""Labelled images by a manifest (CSV or Parquet) or by folders: one table of what each image is.

A manifest has the column `path` (relative to the manifest, or absolute) and any of: `subject`, `split` (train |
validation; default train), `identity`, `expression` (class name or number), AUs (`AU12`, `AU1` or `AU01`) and how
strong all of them are (`AU12_intensity`, 0 … 1, a column for every AU). What is empty or −1 is unknown; AUs without a
column are unknown; other columns are passed over. So BP4D, which lacks AU25 and AU26, Multi-PIE or RAF-DB need no
reader of their own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from aupipe import facs
from aupipe.errors import DatasetError, ManifestError
from aupipe.facestore.columns import of_arrays
from aupipe.facestore.schema import SPLITS
from aupipe.storage import Storage

SUFFIXES = (".csv", ".parquet")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

TABLE = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("subject", pa.string()),  # the images of a subject never stand on both sides of a fold
        ("number", pa.int32()),  # 1-based within the subject, in the order of the manifest
        ("identity", pa.string()),
        ("expression", pa.int8()),
        ("au", pa.list_(pa.int8(), len(facs.AUS))),
        ("intensity", pa.list_(pa.float32(), len(facs.AUS))),  # null: nobody says
    ]
)

_NUMBERS = {"": -1, "-1": -1, "-1.0": -1, "nan": -1, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
_AU_COLUMNS = {name.upper(): index for index, name in enumerate(facs.AUS)} | {
    name.upper(): index for index, name in enumerate(facs.AFFWILD2_AUS)
}
_CLASSES = {name.lower(): index for index, name in enumerate(facs.EXPRESSIONS)} | {
    text: index for index in range(len(facs.EXPRESSIONS)) for text in (str(index), f"{index}.0")
}


def read_manifest(storage: Storage, name: str) -> pa.Table:
    """The images of a manifest as `TABLE`, by split, subject, number.

    Raises:
        ManifestError: the column path is missing, or a value cannot be meant: with the line.
    """
    where = storage.path(name)
    columns = text_columns(storage, name)
    if "path" not in columns:
        raise ManifestError(f"{where} has no column `path`, only {', '.join(columns)}; give each image's path there")
    paths = columns["path"]
    if not paths:
        raise ManifestError(f"{where} names no image")
    if "" in paths:
        raise ManifestError(f"{where}:{paths.index('') + 2} has no path")
    au = np.full((len(paths), len(facs.AUS)), facs.UNKNOWN, np.int8)
    for column, values in columns.items():
        place = _AU_COLUMNS.get(column.upper())
        if place is not None:
            au[:, place] = _mapped(values, _NUMBERS, column, "0, 1 or -1", where)
    strong = _intensity(columns, where)
    unknown = [""] * len(paths)
    splits = [split or "train" for split in columns.get("split", unknown)]
    _mapped(splits, dict.fromkeys(SPLITS, 0), "split", " or ".join(SPLITS), where)
    classes = _mapped(
        columns.get("expression", unknown), {"": -1, "-1": -1, "-1.0": -1, "nan": -1} | _CLASSES, "expression",
        f"a number up to {len(facs.EXPRESSIONS) - 1} or one of {', '.join(facs.EXPRESSIONS)}", where,
    )  # fmt: skip
    subjects = [subject or path for subject, path in zip(columns.get("subject", unknown), paths, strict=True)]
    identities = [identity or None for identity in columns.get("identity", unknown)]
    return _table(paths, splits, subjects, identities, classes, au, strong)


def read_folders(storage: Storage) -> pa.Table:
    """The images of ROOT/IDENTITY/NAME.jpg as `TABLE`: a folder a person, no other label.

    Raises:
        DatasetError: there are none.
    """
    paths = []
    for folder in storage.children()[0]:
        files = storage.children(folder)[1]
        paths += [f"{folder}/{name}" for name in files if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != "."]
    if not paths:
        raise DatasetError(f"{storage.root}: no folder in it holds images; one folder a person is looked for")
    people = [path.partition("/")[0] for path in paths]
    unknown = np.full((len(paths), len(facs.AUS)), facs.UNKNOWN, np.int8)
    return _table(paths, ["train"] * len(paths), people, people, [facs.UNKNOWN] * len(paths), unknown)


def _table(
    paths: Sequence[str], splits: Sequence[str], subjects: Sequence[str], identities: Sequence[str | None],
    classes: Sequence[int], au: np.ndarray, strong: np.ndarray | None = None,
) -> pa.Table:  # fmt: skip
    """Rows in the order of the store, numbered within their subject."""
    seen: dict[str, int] = {}
    numbers = []
    for subject in subjects:
        seen[subject] = seen.get(subject, 0) + 1
        numbers.append(seen[subject])
    columns = [pa.array(values) for values in (paths, splits, subjects)]
    columns += [pa.array(numbers, pa.int32()), pa.array(identities, pa.string()), pa.array(classes, pa.int8())]
    columns += [of_arrays(au, TABLE.field("au").type, len(paths))]
    columns += [of_arrays(strong, TABLE.field("intensity").type, len(paths))]
    table = pa.table(columns, schema=TABLE)
    return table.sort_by([(name, "ascending") for name in ("split", "subject", "number")])


def text_columns(storage: Storage, name: str) -> dict[str, list[str]]:
    """Every column as text, "" where nothing stands."""
    try:
        if name.lower().endswith(".parquet"):
            with storage.open(name) as file:
                table = pq.read_table(file)
        else:
            data = storage.read(name)
            header = data.decode("utf-8-sig", errors="replace").partition("\n")[0].rstrip("\r").split(",")
            types = {column.strip('"'): pa.string() for column in header}  # "001" is a name, not a number
            options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
            table = pyarrow.csv.read_csv(io.BytesIO(data), convert_options=options)
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{storage.path(name)} cannot be read: {error}".replace("\n", " ")) from None
    texts = {}
    for column in table.column_names:
        values = table[column].to_pylist()
        texts[column.strip()] = ["" if value is None else str(value).strip() for value in values]
    return texts


def _intensity(columns: Mapping[str, list[str]], where: str) -> np.ndarray | None:
    """(N, 12) float32 0 … 1; None where there are no such columns."""
    named = {column.upper(): column for column in columns}
    wanted = [f"{name}_INTENSITY".upper() for name in facs.AUS]
    there = [column for column in wanted if column in named]
    if not there:
        return None
    if len(there) < len(wanted):
        missing = ", ".join(column for column in wanted if column not in named)
        raise ManifestError(f"{where} says of some AUs how strong they are, and has no column {missing}")
    found = np.empty((len(columns["path"]), len(wanted)), np.float32)
    for place, column in enumerate(wanted):
        for line, value in enumerate(columns[named[column]]):
            try:
                found[line, place] = value
            except ValueError:
                found[line, place] = np.nan
            if not 0 <= found[line, place] <= 1:
                raise ManifestError(f"{where}:{line + 2} has {named[column]} {value!r}; allowed is a number 0 … 1")
    return found


def _mapped(values: Sequence[str], meanings: Mapping[str, int], column: str, allowed: str, where: str) -> list[int]:
    found = [meanings.get(value, meanings.get(value.lower())) for value in values]
    if None in found:
        line = found.index(None)
        raise ManifestError(f"{where}:{line + 2} has {column} {values[line]!r}; allowed is {allowed}, or nothing")
    return [value for value in found if value is not None]
