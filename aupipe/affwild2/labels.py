"""Annotation files: a header line, then one line per frame. Line i after the header belongs to image i:05d.jpg.

Columns are identified by their name in the header, never by position. The delimiter is the one of comma, semicolon,
tab and space that makes the header complete. Labels may be written as 1, 1.0 or "1". A cell without a value (empty,
NaN, NULL) is unknown, like −1. Empty cells at the end of a line are ignored. A column of frame numbers may come first.
It must count from 0 or 1 in steps of 1, because frames are numbered by line.

An invalid line (too few values, a label of 2, another frame number) loses only its own frame; the other lines keep
their frames. A file that is not an annotation file is an error.
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
_FRAME_NUMBER = re.compile(r"(?:.*/)?0*(\d{1,7})(?:\.\w+)?", re.ASCII)  # 7, 7.0, 00007.jpg or video/00007.jpg
_DELIMITERS = (",", ";", "\t", None)  # None: any white space, as in str.split
_CLASSES = {name.lower(): index for index, name in enumerate(facs.EXPRESSIONS)}


@dataclass(frozen=True)
class Labels:
    """One annotation file.

    Attributes:
        values: int8, (N, 12) for AUs, (N,) for expressions. A line with one AU of −1 has −1 for all AUs.
        bad: (N,) bool, invalid lines; their values are −1.
        problems: "FILE:LINE problem" for each invalid line.
    """

    values: npt.NDArray[np.int8]
    bad: npt.NDArray[np.bool_]
    problems: tuple[str, ...]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the line has a label."""
        return (self.values if self.values.ndim == 1 else self.values[:, 0]) != facs.UNKNOWN


@dataclass(frozen=True)
class _File:
    """An annotation file whose labels are not parsed yet.

    Attributes:
        lines: data lines, without blank lines at the end.
        first: 1-based number of the first data line in the file.
        delimiter: between cells; None: any white space.
        columns: for AUs the column of each AU in `facs` order; for expressions the class in `facs` order of each label.
        width: number of cells per line, including frame numbers.
        indexed: whether frame numbers come first.
    """

    lines: Sequence[str]
    first: int
    delimiter: str | None
    columns: Sequence[int]
    width: int
    indexed: bool

    def cells(self, line: str) -> list[str]:
        """Return the cells of a line, without empty cells beyond its width."""
        cells = _split(line, self.delimiter)
        while len(cells) > self.width and not cells[-1]:
            cells.pop()
        return cells


def check_header(task: str, data: bytes, where: str) -> int:
    """Return the number of frames of an annotation file, reading only its header.

    Raises:
        DatasetError: the file is empty, or its header is not one of this task.
    """
    return len(_open(task, data, where).lines)


def parse(task: str, data: bytes, where: str) -> Labels:
    """Return the labels of one annotation file in the order of `facs`.

    Args:
        task: au | expr.
        data: content of the file.
        where: name of the file, for messages.

    Raises:
        DatasetError: the file is empty, or its header is not one of this task.
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
        values = np.array([*file.columns, facs.UNKNOWN], np.int8)[raw[:, 0]]  # −1 indexes the last entry
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
    """Return, for AUs, the column of each AU in `facs` order; for expressions, the class of each label."""
    if task == "au":
        fields = [field.upper() for field in header]
        places = {field: place for place, field in enumerate(fields)}
        both = list(zip(facs.AFFWILD2_AUS, facs.AUS, strict=True))  # AU1 or AU01
        found = {short: places.get(short.upper(), places.get(long.upper())) for short, long in both}
        missing = [name for name, place in found.items() if place is None]
        twice = [short for short, long in both if sum(field in (short, long) for field in fields) > 1]
        if twice:
            raise DatasetError(f"{where} the header names {', '.join(twice)} twice; fix: delete a column")
        if missing:
            raise DatasetError(f"{where} the header has no {', '.join(missing)}; it must name all 12 AUs")
        return [place for place in found.values() if place is not None]
    unknown = [field for field in header if field.lower() not in _CLASSES]
    if unknown or not header:
        known = ", ".join(facs.EXPRESSIONS)
        raise DatasetError(f"{where} the header has the class {(unknown or [''])[0]!r}; allowed are {known}")
    return [_CLASSES[field.lower()] for field in header]


def _numbers(
    file: _File, places: Sequence[int], allowed: Collection[int], where: str
) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """Return values (N, places), −1 for invalid lines, and the problem of each invalid line by its index."""
    if (values := _plain_numbers(file, places, allowed)) is not None:
        return values, {}
    values = np.full((len(file.lines), len(places)), facs.UNKNOWN, np.int64)
    problems = {}
    known = _Labels(allowed, decimal_comma=file.delimiter != ",")
    offset: int | None = None  # of the frame numbers, from the first line that has one
    for index, line in enumerate(file.lines):
        cells = file.cells(line)
        place = f"{where}:{file.first + index}"
        if len(cells) != file.width:
            problems[index] = f"{place} has {len(cells) if line.strip() else 0} values instead of {file.width}"
            continue
        labels = [known[cells[column]] for column in places]
        if None in labels:
            invalid = cells[places[labels.index(None)]]
            problems[index] = f"{place} has the label {invalid!r}; allowed are {', '.join(map(str, allowed))}"
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
    """Return values (N, places) if all lines are valid and plain numbers, as in the data set itself; otherwise None."""
    if file.delimiter != "," or file.indexed or any(line.count(",") != file.width - 1 for line in file.lines):
        return None
    try:
        values = np.array(",".join(file.lines).split(","), np.int64).reshape(len(file.lines), file.width)[:, places]
    except (ValueError, OverflowError):
        return None
    return values if np.isin(values, list(allowed)).all() else None


class _Labels(dict[str, int | None]):
    """Cache of cell → label, None for an invalid cell; distinct cells are few, so each is parsed once."""

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
