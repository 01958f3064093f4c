"""Annotation files: a header line, then one line a frame. Line i after the header belongs to image i:05d.jpg.

Columns are taken by their name in the header, never by position. A line that cannot be meant (too few values, a label
of 2) costs its frame only: frames are numbered by line, so the others keep their place. A file that is no annotation
file at all is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.errors import DatasetError

_AU_VALUES = (-1, 0, 1)
_AU_COLUMNS = {name.upper(): index for index, name in enumerate(facs.AFFWILD2_AUS)}
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


def check_header(task: str, data: bytes, where: str) -> int:
    """The number of frames of an annotation file, after a look at its header alone.

    Raises:
        DatasetError: it is empty or its header is not one of this task.
    """
    header, lines = _lines(data, where)
    _columns(task, header, where)
    return len(lines)


def parse(task: str, data: bytes, where: str) -> Labels:
    """The labels of one annotation file, in the order of `facs`.

    Args:
        task: au | expr.
        data: the file's bytes.
        where: its name, for messages.

    Raises:
        DatasetError: it is empty or its header is not one of this task.
    """
    header, lines = _lines(data, where)
    columns = _columns(task, header, where)
    allowed = _AU_VALUES if task == "au" else (-1, *range(len(columns)))
    width = len(header) if task == "au" else 1
    raw, problems = _numbers(lines, width, allowed, where)
    bad = np.zeros(len(lines), bool)
    bad[list(problems)] = True
    if task == "au":
        values = raw[:, columns].astype(np.int8)
        values[(values == facs.UNKNOWN).any(axis=1)] = facs.UNKNOWN
    else:
        values = np.array([*columns, facs.UNKNOWN], np.int8)[raw[:, 0]]  # −1 takes the last
    return Labels(values, bad, tuple(problems.values()))


def _lines(data: bytes, where: str) -> tuple[list[str], list[str]]:
    """Header fields and data lines; blank lines at the end are no frames."""
    header, *lines = data.decode("utf-8-sig", errors="replace").splitlines() or [""]
    while lines and not lines[-1].strip():
        lines.pop()
    if not header.strip():
        raise DatasetError(f"{where} is empty; unpack the annotations again")
    return [field.strip() for field in header.split(",")], lines


def _columns(task: str, header: list[str], where: str) -> list[int]:
    """For AUs the column of each AU in `facs` order; for expressions the class in `facs` order of each label."""
    if task == "au":
        places = {field.upper(): place for place, field in enumerate(header)}
        missing = [name for name in _AU_COLUMNS if name not in places]
        if missing:
            raise DatasetError(f"{where}:1 the header has no {', '.join(missing)}; it must name all 12 AUs")
        return [places[name] for name in _AU_COLUMNS]
    unknown = [field for field in header if field.lower() not in _CLASSES]
    if unknown:
        known = ", ".join(facs.EXPRESSIONS)
        raise DatasetError(f"{where}:1 the header names the class {unknown[0]!r}; known are {known}")
    return [_CLASSES[field.lower()] for field in header]


def _numbers(
    lines: list[str], width: int, allowed: tuple[int, ...], where: str
) -> tuple[npt.NDArray[np.int64], dict[int, str]]:
    """(N, width) values, −1 where a line is bad, and what is wrong with each bad line (by index)."""
    if all(line.count(",") == width - 1 for line in lines):
        try:
            values = np.array(",".join(lines).split(","), np.int64).reshape(len(lines), width)
        except ValueError:
            pass
        else:
            if np.isin(values, allowed).all():
                return values, {}
    values = np.full((len(lines), width), facs.UNKNOWN, np.int64)
    problems = {}
    texts = {str(value): value for value in allowed}
    for index, line in enumerate(lines):
        fields = [field.strip() for field in line.split(",")]
        strange = [field for field in fields if field not in texts]
        if len(fields) != width:
            problems[index] = f"{where}:{index + 2} has {len(fields)} values instead of {width}"
        elif strange:
            problems[index] = f"{where}:{index + 2} has the label {strange[0]!r}; allowed are {', '.join(texts)}"
        else:
            values[index] = [texts[field] for field in fields]
    return values, problems
