"""Labeled images from a manifest or from folders: one table with one row per image.

A manifest is CSV, TSV, JSONL or Parquet, read by the rules of `aupipe.manifests`. It has the column `path` (relative to
the manifest, or absolute) and any of: `subject`, `split` (train | validation; default train), `identity`, `expression`
(class name or number), AUs (`AU12`, `AU1` or `AU01`) and AU intensities (`AU12_intensity`, 0 … 1, one column for every
AU). Empty cells, −1 and AUs without a column are unknown. Other columns are not used, which is logged. Published data
sets with files of their own have readers in `datasets`.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from aupipe import facs
from aupipe.errors import DatasetError, ManifestError
from aupipe.facestore.columns import from_arrays
from aupipe.facestore.schema import SPLITS
from aupipe.hidden_files import is_hidden
from aupipe.manifests import TextTable, parse_number, read_table
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

TABLE = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("subject", pa.string()),  # all images of a subject are in the same fold
        ("number", pa.int32()),  # 1-based within the subject, in the order of the manifest
        ("identity", pa.string()),
        ("expression", pa.int8()),
        ("au", pa.list_(pa.int8(), len(facs.AUS))),
        ("intensity", pa.list_(pa.float32(), len(facs.AUS))),  # null: unknown
    ]
)

_OWN = ("path", "subject", "split", "identity", "expression")
_BOOLEANS = {"true": 1, "false": 0}  # as pandas writes them
_AU_COLUMNS = {name.upper(): index for index, name in enumerate(facs.AUS)} | {
    name.upper(): index for index, name in enumerate(facs.AFFWILD2_AUS)
}
_CLASSES = {name.lower(): index for index, name in enumerate(facs.EXPRESSIONS)}


def read_manifest(storage: Storage, name: str) -> pa.Table:
    """Return the images of a manifest as `TABLE`, sorted by split, subject, number.

    Raises:
        ManifestError: the column `path` is missing, a value is invalid, or two rows name one image; the message
            contains the line.
    """
    where = storage.path(name)
    table = read_table(storage, name, "path", _OWN)
    if not len(table):
        raise ManifestError(f"{where} lists no image")
    paths = [table.place("path", row) for row in range(len(table))]
    rows: dict[str, int] = {}
    for row, path in enumerate(paths):
        if (before := rows.setdefault(posixpath.normpath(path), row)) != row:
            raise ManifestError(
                f"{table.where(row)} names {path} again, as {table.where(before)}; fix: give one row for each image"
            )
    au = np.full((len(table), len(facs.AUS)), facs.UNKNOWN, np.int8)
    named: dict[int, str] = {}
    for column in table.columns:
        place = _AU_COLUMNS.get(column.upper())
        if place is None:
            continue
        if place in named:
            raise ManifestError(f"{where} has two columns of {facs.AUS[place]}: {named[place]} and {column}")
        named[place] = column
        au[:, place] = _numbers(table, column, _BOOLEANS, 1, "0, 1 or -1")
    intensity = _intensity(table)
    intensities = {f"{name}_INTENSITY".upper() for name in facs.AUS}
    others = [
        column for column in table.columns if column not in _OWN and column.upper() not in {*_AU_COLUMNS, *intensities}
    ]
    if others:
        logger.warning("%s: columns that are not used: %s (used: %s, AUs)", where, ", ".join(others), ", ".join(_OWN))
    splits = [split.lower() or "train" for split in table.texts("split")]
    for row, split in enumerate(splits):
        if split not in SPLITS:
            raise _refused(table, "split", row, " or ".join(SPLITS))
    highest = len(facs.EXPRESSIONS) - 1
    allowed = f"a number up to {highest} or one of {', '.join(facs.EXPRESSIONS)}"
    classes = _numbers(table, "expression", _CLASSES, highest, allowed)
    subjects = [subject or path for subject, path in zip(table.texts("subject"), paths, strict=True)]
    identities = [identity or None for identity in table.texts("identity")]
    return image_table(paths, splits, subjects, identities, classes, au, intensity)


def read_folders(storage: Storage) -> pa.Table:
    """Return the images ROOT/IDENTITY/NAME.jpg as `TABLE`: one folder per person, no other label.

    Raises:
        DatasetError: there are no images.
    """
    paths: list[str] = []
    folders, beside = storage.children()
    others = _images(beside)
    for folder in folders:
        if is_hidden(folder):
            continue
        deeper, files = storage.children(folder)
        paths += [f"{folder}/{name}" for name in _images(files)]
        others += [f"{folder}/{name}/" for name in deeper if not is_hidden(name)]
    if not paths:
        raise DatasetError(f"{storage.root}: no folder in it contains images; one folder per person is expected")
    if others:
        logger.warning(
            "%s: not used, because images are expected in folders of people, one level deep: %s%s", storage.root,
            ", ".join(others[:5]), f" and {len(others) - 5:,} others" if len(others) > 5 else "",
        )  # fmt: skip
    people = [path.partition("/")[0] for path in paths]
    unknown = np.full((len(paths), len(facs.AUS)), facs.UNKNOWN, np.int8)
    return image_table(paths, ["train"] * len(paths), people, people, [facs.UNKNOWN] * len(paths), unknown)


def _images(names: Sequence[str]) -> list[str]:
    """Return the names of images, without hidden ones."""
    return [name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)]


def image_table(
    paths: Sequence[str], splits: Sequence[str], subjects: Sequence[str], identities: Sequence[str | None],
    classes: Sequence[int], au: np.ndarray, intensity: np.ndarray | None = None,
) -> pa.Table:  # fmt: skip
    """Return rows in the order of the store, numbered within their subject."""
    counts: dict[str, int] = {}
    numbers = []
    for subject in subjects:
        counts[subject] = counts.get(subject, 0) + 1
        numbers.append(counts[subject])
    columns = [pa.array(values) for values in (paths, splits, subjects)]
    columns += [pa.array(numbers, pa.int32()), pa.array(identities, pa.string()), pa.array(classes, pa.int8())]
    columns += [from_arrays(au, TABLE.field("au").type, len(paths))]
    columns += [from_arrays(intensity, TABLE.field("intensity").type, len(paths))]
    table = pa.table(columns, schema=TABLE)
    return table.sort_by([(name, "ascending") for name in ("split", "subject", "number")])


def _intensity(table: TextTable) -> np.ndarray | None:
    """Return intensities (N, 12) float32 0 … 1; None without such columns."""
    named = {column.upper(): column for column in table.columns}
    expected = [f"{name}_INTENSITY".upper() for name in facs.AUS]
    missing = [column for column in expected if column not in named]
    if len(missing) == len(expected):
        return None
    if missing:
        where = table.storage.path(table.name)
        raise ManifestError(f"{where} has intensities of some AUs only; add the columns {', '.join(missing)}")
    found = np.empty((len(table), len(expected)), np.float32)
    for place, column in enumerate(expected):
        for row in range(len(table)):
            try:
                value = table.number(named[column], row)
            except ValueError:
                value = None
            if value is None or not 0 <= value <= 1:
                raise _refused(table, named[column], row, "a number 0 … 1", optional=False)
            found[row, place] = value
    return found


def _numbers(table: TextTable, column: str, words: Mapping[str, int], highest: int, allowed: str) -> list[int]:
    """Return the label of each row: −1 if unknown, the value of a word in `words`, or 0 … `highest`."""
    values = table.columns.get(column)
    if values is None:
        return [facs.UNKNOWN] * len(table)
    meanings = {text: _label(text, words, highest, table.decimal_comma) for text in set(values)}
    labels = [meanings[text] for text in values]
    if None in labels:
        raise _refused(table, column, labels.index(None), allowed)
    return [label for label in labels if label is not None]


def _label(text: str, words: Mapping[str, int], highest: int, decimal_comma: bool) -> int | None:
    """Return the label of a cell; None if it is invalid."""
    if text.lower() in words:
        return words[text.lower()]
    try:
        number = parse_number(text, decimal_comma)
    except ValueError:
        return None
    if number is None:
        return facs.UNKNOWN
    return int(number) if number in range(facs.UNKNOWN, highest + 1) else None


def _refused(table: TextTable, column: str, row: int, allowed: str, optional: bool = True) -> ManifestError:
    cell = table.columns[column][row]
    return ManifestError(
        f"{table.where(row)} has {column} {cell!r}; allowed is {allowed}" + (", or nothing" if optional else "")
    )
