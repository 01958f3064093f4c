"""Annotation files: a header line, then one line a frame. Line i after the header belongs to image i:05d.jpg.

Columns are taken by their name in the header, never by position. Cells are separated by the one of comma, semicolon,
tab and space that makes the header complete. Labels may be written as 1, 1.0 or "1"; a cell without a value (empty,
NaN, NULL) is unknown, as −1 is; empty cells at the end of a line are ignored. A column of frame numbers may come first:
it must count from 0 or 1 in steps of 1, because frames are numbered by line.

A line that cannot be meant (too few values, a label of 2, another frame number) costs its frame only, and the others
keep their place. A file that is no annotation file at all is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.errors import DatasetError, ManifestError
from aupipe.manifests import decode_text, parse_number, split_lines

_AU_VALUES = (-1, 0, 1)
_INDEX_NAMES = frozenset({"", "frame", "image", "index", "id", "frame_id", "image_id", "image_location", "unnamed: 0"})
_FRAME_NUMBER = re.compile(r"(?:.*/)?(\d+)(?:\.\w+)?", re.ASCII)  # 7, 7.0, 00007.jpg or video/00007.jpg
_DELIMITERS = (",", ";", "\t", None)  # None: any space, as in str.split
_CLASSES = {name.lower(): index for index, name in enumerate(facs.EXPRESSIONS)}


@dataclass(frozen=True)
class Labels:
    """One annotation file.

    Attributes:
        values: (N, 12) for AUs, all −1 in a line where one is; (N,) for expressions; int8.
        bad: (N,) bool, lines that could not be read; their values are −1.
        problems: "FILE:LINE what is wrong" for each bad line.
    """

    values: npt.NDArray[np.int8]
    bad: npt.NDArray[np.bool_]
    problems: tuple[str, ...]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the line says anything."""
        return self.values.reshape(len(self.values), -1)[:, 0] != facs.UNKNOWN


@dataclass(frozen=True)
class _File:
    """An annotation file, its labels not yet read.

    Attributes:
        lines: data lines; blank lines at the end are no frames.
        first: the number of the first data line in the file, 1-based.
        delimiter: between cells; None: any space.
        columns: for AUs the column of each AU in `facs` order; for expressions the class in `facs` order of each label.
        width: how many cells a line has; 1 more where frame numbers come first.
        indexed: whether frame numbers come first.
    """

    lines: Sequence[str]
    first: int
    delimiter: str | None
    columns: Sequence[int]
    width: int
    indexed: bool

    def cells(self, line: str) -> list[str]:
        """Return the cells of a line, without empty ones beyond its width."""
        cells = _split(line, self.delimiter)
        while len(cells) > self.width and not cells[-1]:
            cells.pop()
        return cells


def check_header(task: str, data: bytes, where: str) -> int:
    """The number of frames of an annotation file, after a look at its header alone.

    Raises:
        DatasetError: it is empty or its header is not one of this task.
    """
    return len(_open(task, data, where).lines)


def parse(task: str, data: bytes, where: str) -> Labels:
    """The labels of one annotation file, in the order of `facs`.

    Args:
        task: au | expr.
        data: the file's bytes.
        where: its name, for messages.

    Raises:
        DatasetError: it is empty or its header is not one of this task.
    """
    file = _open(task, data, where)
    allowed = _AU_VALUES if task == "au" else (-1, *range(len(file.columns)))
    places = file.columns if task == "au" else [int(file.indexed)]
    raw, problems = _numbers(file, places, allowed, where)
    bad = np.zeros(len(file.lines), bool)
    bad[list(problems)] = True
    if task == "au":
        values = raw.astype(np.int8)
        values[(values == facs.UNKNOWN).any(axis=1)] = facs.UNKNOWN
    else:
        values = np.array([*file.columns, facs.UNKNOWN], np.int8)[raw[:, 0]]  # −1 takes the last
    return Labels(values, bad, tuple(problems.values()))


def _open(task: str, data: bytes, where: str) -> _File:
    """Read the header."""
    try:
        lines = split_lines(decode_text(data, where, errors="replace"))
    except ManifestError as error:
        raise DatasetError(str(error)) from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DatasetError(f"{where} is empty; unpack the annotations again")
    first = next(number for number, line in enumerate(lines) if line.strip())
    refused: list[DatasetError] = []
    for delimiter in _DELIMITERS:
        header = _split(lines[first], delimiter)
        while header and not header[-1]:
            header.pop()
        indexed = bool(header) and header[0].lower() in _INDEX_NAMES
        own = header[indexed:] if task == "expr" else header
        try:
            columns = _columns(task, own, f"{where}:{first + 1}")
        except DatasetError as error:
            refused.append(error)
        else:
            width = len(header) if task == "au" else 1 + indexed
            return _File(lines[first + 1 :], first + 2, delimiter, columns, width, indexed)
    raise refused[0]


def _split(line: str, delimiter: str | None) -> list[str]:
    return [cell.strip().strip('"').strip() for cell in line.split(delimiter)]


def _columns(task: str, header: Sequence[str], where: str) -> list[int]:
    """For AUs the column of each AU in `facs` order; for expressions the class in `facs` order of each label."""
    if task == "au":
        places = {field.upper(): place for place, field in enumerate(header)}
        both = zip(facs.AFFWILD2_AUS, facs.AUS, strict=True)  # AU1 or AU01
        found = {short: places.get(short.upper(), places.get(long.upper())) for short, long in both}
        missing = [name for name, place in found.items() if place is None]
        if missing:
            raise DatasetError(f"{where} the header has no {', '.join(missing)}; it must name all 12 AUs")
        return [place for place in found.values() if place is not None]
    unknown = [field for field in header if field.lower() not in _CLASSES]
    if unknown or not header:
        known = ", ".join(facs.EXPRESSIONS)
        raise DatasetError(f"{where} the header names the class {(unknown or [''])[0]!r}; known are {known}")
    return [_CLASSES[field.lower()] for field in header]


def _numbers(
    file: _File, places: Sequence[int], allowed: Collection[int], where: str
) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """(N, places) values, −1 where a line is bad, and what is wrong with each bad line (by index)."""
    if (values := _plain_numbers(file, places, allowed)) is not None:
        return values, {}
    values = np.full((len(file.lines), len(places)), facs.UNKNOWN, np.int64)
    problems = {}
    known = _Labels(allowed, decimal_comma=file.delimiter != ",")
    offset: int | None = None  # of the frame numbers; by the first line that has one
    for index, line in enumerate(file.lines):
        cells = file.cells(line)
        place = f"{where}:{file.first + index}"
        if len(cells) != file.width:
            problems[index] = f"{place} has {len(cells) if line.strip() else 0} values instead of {file.width}"
            continue
        labels = [known[cells[column]] for column in places]
        if None in labels:
            strange = cells[places[labels.index(None)]]
            problems[index] = f"{place} has the label {strange!r}; allowed are {', '.join(map(str, allowed))}"
            continue
        if file.indexed:
            number = _FRAME_NUMBER.fullmatch(cells[0])
            if offset is None and number is not None and int(number[1]) - index in (0, 1):
                offset = int(number[1]) - index
            if number is None or int(number[1]) - index != offset:
                problems[index] = f"{place} has the frame number {cells[0]!r} instead of {index + (offset or 0)}"
                continue
        values[index] = [label for label in labels if label is not None]
    return values, problems


def _plain_numbers(
    file: _File, places: Sequence[int], allowed: Collection[int]
) -> npt.NDArray[np.int64] | None:  # fmt: skip
    """(N, places) values where every line is plain numbers without fault, as in the data set itself; else None."""
    if file.delimiter != "," or file.indexed or any(line.count(",") != file.width - 1 for line in file.lines):
        return None
    try:
        values = np.array(",".join(file.lines).split(","), np.int64).reshape(len(file.lines), file.width)[:, places]
    except ValueError:
        return None
    return values if np.isin(values, list(allowed)).all() else None


class _Labels(dict[str, int | None]):
    """The label that each text means, None if it can be none; texts are few, so each is read once."""

    def __init__(self, allowed: Collection[int], decimal_comma: bool) -> None:
        self._allowed, self._decimal_comma = allowed, decimal_comma

    def __missing__(self, text: str) -> int | None:
        try:
            number = parse_number(text, self._decimal_comma)
        except ValueError:
            number = np.nan
        label = facs.UNKNOWN if number is None else int(number) if number in self._allowed else None
        self[text] = label
        return label
