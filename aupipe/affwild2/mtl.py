"""Annotation files of the multi-task challenges (ABAW3, ABAW4, ABAW7: s-Aff-Wild2): one file for all tracks of a split.

A header `image,valence,arousal,expression,aus`, in which `aus` or the 12 names stand for 12 columns, then lines
`TRACK/NNNNN.jpg,VALENCE,AROUSAL,CLASS,AU1,…,AU26` for some frames. A track's part of the file is named FILE#TRACK.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from aupipe import facs
from aupipe.affwild2.labels import Labels, check_header, parse
from aupipe.errors import DatasetError, ManifestError
from aupipe.manifests import decode_text, parse_number, split_lines
from aupipe.storage import Storage

FILES = {
    "train_set_annotations.txt": "train",
    "training_set_annotations.txt": "train",
    "validation_set_annotations.txt": "validation",
}
_IMAGE = re.compile(r"(?P<track>[^/]+)/0*(?P<frame>\d{1,7})\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)


@dataclass
class _Track:
    """The lines of one track: frame → AUs in `facs` order and class; None for an invalid line."""

    lines: dict[int, tuple[list[int], int] | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """Return the split of a file of this kind by its name, None for other files."""
    return FILES.get(name.rsplit("/", 1)[-1].lower())


def tracks_of(storage: Storage, name: str) -> list[str]:
    """Return the names FILE#TRACK of the parts of a file, sorted.

    Raises:
        DatasetError: the file is empty, or its header is not one of a multi-task challenge.
    """
    return [f"{name}#{track}" for track in sorted(_read(storage.root, name))]


def rows_and_digest(storage: Storage, task: str, name: str) -> tuple[int, str]:
    """Return the number of frames of an annotation file, or of a part FILE#TRACK, and a hash of its content.

    Raises:
        DatasetError: as `labels_of`.
    """
    file, _, track = name.partition("#")
    if not track:
        data = storage.read(name)
        return check_header(task, data, storage.path(name)), hashlib.sha256(data).hexdigest()
    lines = _read(storage.root, file)[track].lines
    return max(lines, default=0), hashlib.sha256(repr(sorted(lines.items())).encode()).hexdigest()


def labels_of(storage: Storage, task: str, name: str) -> Labels:
    """Return the labels of an annotation file, or of a part FILE#TRACK; frames without a line are unknown.

    Raises:
        DatasetError: the file is empty, or its header is invalid.
    """
    file, _, track = name.partition("#")
    if not track:
        return parse(task, storage.read(name), storage.path(name))
    found = _read(storage.root, file)[track]
    count = max(found.lines, default=0)
    values = np.full((count, len(facs.AUS)) if task == "au" else count, facs.UNKNOWN, np.int8)
    bad = np.zeros(count, bool)
    for frame, line in found.lines.items():
        if line is None:
            bad[frame - 1] = True
        elif task == "expr":
            values[frame - 1] = line[1]
        elif facs.UNKNOWN not in line[0]:
            values[frame - 1] = line[0]
    return Labels(values, bad, tuple(found.problems) if task == "au" else ())


@functools.lru_cache(maxsize=4)
def _read(root: str, name: str) -> Mapping[str, _Track]:
    storage = Storage(root)
    where = storage.path(name)
    try:
        lines = split_lines(decode_text(storage.read(name), where, errors="replace"))
    except ManifestError as error:
        raise DatasetError(str(error)) from None
    header = [cell.strip().lower() for cell in (lines[0] if lines else "").rstrip(", ").split(",")]
    names = [au.lower() for au in facs.AFFWILD2_AUS]
    if header[:1] != ["image"] or "expression" not in header or not ("aus" in header or set(names) <= set(header)):
        raise DatasetError(f"{where}: header {lines[:1]} (image,valence,arousal,expression,aus); fix: unpack it again")
    if "aus" in header:
        place = header.index("aus")
        header[place : place + 1] = names
    columns, expression = [header.index(au) for au in names], header.index("expression")
    tracks: dict[str, _Track] = {}
    for number, line in enumerate(lines[1:], 2):
        cells = [cell.strip() for cell in line.split(",")]
        match = _IMAGE.fullmatch(cells[0])
        if match is None or int(match["frame"]) < 1:
            if line.strip():
                raise DatasetError(f"{where}:{number}: image {cells[0]!r} (TRACK/NNNNN.jpg); fix: unpack it again")
            continue
        track, frame = tracks.setdefault(match["track"], _Track()), int(match["frame"])
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        aus = [_label(cells, column, 1) for column in columns]
        kind = _label(cells, expression, len(facs.EXPRESSIONS) - 1)
        if frame in track.lines or len(cells) != len(header) or kind is None or None in aus:
            track.problems.append(f"{where}:{number} occurs twice or has invalid labels: {line[:80]!r}")
            track.lines[frame] = None
        else:
            track.lines[frame] = [au for au in aus if au is not None], kind
    return tracks


def _label(cells: list[str], column: int, largest: int) -> int | None:
    """Return the label −1 … `largest` of a cell; −1 for an empty one, None for an invalid one."""
    try:
        number = parse_number(cells[column], False) if column < len(cells) else None
    except ValueError:
        return None
    if number is None:
        return facs.UNKNOWN
    return int(number) if number in range(facs.UNKNOWN, largest + 1) else None
