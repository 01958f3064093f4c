"""Challenge submissions of the AU task: from probabilities per person to the organizers' files, with checks.

ABAW3 uses one file per track: a header of AU names, then one line of 0/1 per frame. ABAW5 and later use a single file:
header `image_location,AU1,…,AU26`, lines `TRACK/NNNNN.jpg,0,1,…` in the order of the organizers' sample file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aupipe import facs
from aupipe.affwild2.layout import split_person
from aupipe.errors import DatasetError
from aupipe.facestore import gaps
from aupipe.facestore.frame_times import frame_rate_hz
from aupipe.hidden_files import is_hidden
from aupipe.storage import Storage, folder_and_name

VIDEO_HEADER = ",".join(facs.AFFWILD2_AUS)
SINGLE_HEADER = f"image_location,{VIDEO_HEADER}"
_LOCATION = re.compile(r"(?P<track>[^/,]+)/(?P<frame>\d{5})\.jpg")


@dataclass(frozen=True)
class TrackPredictions:
    """Probabilities (N, 12) of a track's frames (N,), 1-based and ascending."""

    frames: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]


def fill(known: TrackPredictions, count: int, max_gap_frames: float) -> npt.NDArray[np.float64]:
    """Return probabilities (count, 12) of frames 1 … count.

    Gaps of at most `max_gap_frames` are interpolated. Longer gaps, the start and the end take the nearest frame (on a
    tie the earlier one). Frames beyond `count` are dropped.
    """
    frames = known.frames
    target = np.arange(1, count + 1)
    lines = gaps.interpolate(target, frames, known.probabilities, np.diff(frames) <= max_gap_frames)
    after = np.clip(np.searchsorted(frames, target), 0, len(frames) - 1)
    before = np.clip(after - 1, 0, len(frames) - 1)
    nearest = np.where(np.abs(target - frames[before]) <= np.abs(frames[after] - target), before, after)
    return np.where(np.isnan(lines), known.probabilities[nearest], lines)


def fill_tracks(
    predictions: Mapping[str, TrackPredictions], counts: Mapping[str, int]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return probabilities (count, 12) per track, in the order of `counts` (track → number of frames).

    A track in which no frame has a face has 0 everywhere, because the organizers require its lines.

    Raises:
        DatasetError: a track is missing.
    """
    result = {}
    for track, count in counts.items():
        if track not in predictions:
            raise DatasetError(
                f"nothing is predicted for {track}, which the submission must contain; annotate it first"
            )
        known = predictions[track]
        max_gap_frames = gaps.MAX_GAP_S * frame_rate_hz(track)
        result[track] = fill(known, count, max_gap_frames) if len(known.frames) else np.zeros((count, len(facs.AUS)))
    return result


def read_order(sample: str) -> list[tuple[str, int]]:
    """Return (track, frame) of every line of the organizers' sample file, which begins with a header.

    Raises:
        DatasetError: there is no header, or no line, or a line does not begin with TRACK/NNNNN.jpg from 00001 on.
    """
    order = []
    lines = sample.splitlines()
    if len(lines) < 2 or _LOCATION.fullmatch(lines[0].split(",")[0].strip()):
        raise DatasetError(
            "the sample file has no header with lines TRACK/NNNNN.jpg,… below it; fix: give that of the organizers"
        )
    for number, line in enumerate(lines[1:], start=2):
        match = _LOCATION.fullmatch(line.split(",")[0].strip())
        if match is None:
            raise DatasetError(f"the sample file's line {number} does not begin with TRACK/NNNNN.jpg: {line[:60]!r}")
        if not int(match["frame"]):
            raise DatasetError(
                f"the sample file's line {number} is frame 0 of {match['track']} (frames count from 1); "
                "fix: give the file of the organizers"
            )
        order.append((match["track"], int(match["frame"])))
    return order


def frame_counts(order: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return track → last frame in `order`, with tracks in order of appearance."""
    counts: dict[str, int] = {}
    for track, frame in order:
        counts[track] = max(frame, counts.get(track, 0))
    return counts


def write_single(order: Sequence[tuple[str, int]], decisions: Mapping[str, npt.NDArray[np.bool_]]) -> str:
    """Return the single file of ABAW5 and later."""
    lines = [f"{track}/{frame:05d}.jpg,{_line(decisions[track][frame - 1])}" for track, frame in order]
    return "\n".join([SINGLE_HEADER, *lines]) + "\n"


def write_track(decisions: npt.NDArray[np.bool_]) -> str:
    """Return ABAW3's file TRACK.txt of one track (count, 12)."""
    return "\n".join([VIDEO_HEADER, *map(_line, decisions)]) + "\n"


def read_single(text: str, order: Sequence[tuple[str, int]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return track → decisions (count, 12); frames that are not in `order` are False.

    Raises:
        DatasetError: the file does not have the organizers' format.
    """
    _refuse(check_single(text, order))
    decisions = {track: np.zeros((count, len(facs.AUS)), bool) for track, count in frame_counts(order).items()}
    for (track, frame), line in zip(order, text.splitlines()[1:], strict=True):
        decisions[track][frame - 1] = [value == "1" for value in line.split(",")[1:]]
    return decisions


def read_track(text: str, count: int) -> npt.NDArray[np.bool_]:
    """Return the decisions (count, 12) of one track's file.

    Raises:
        DatasetError: the file does not have the organizers' format.
    """
    _refuse(check_track(text, count))
    return np.array([[value == "1" for value in line.split(",")] for line in text.splitlines()[1:]], bool)


def read_files(uri: str) -> pa.Table:
    """Read a single file or a folder of TRACK.txt; return `video_id`, `person`, `frame` and the decisions `AUxx`.

    Raises:
        DatasetError: there is no such file, or it does not have the organizers' format.
    """
    storage, name = folder_and_name(uri) if uri.lower().endswith(".txt") else (Storage(uri), "")
    names = [each for each in [name] if storage.exists(each)] if name else _track_files(storage)
    if not names:
        raise DatasetError(f"{uri}: no submission there; give a single .txt file, or a folder of TRACK.txt files")
    order: list[tuple[str, int]] = []
    decided: list[npt.NDArray[np.bool_]] = []
    for each in names:
        text = storage.read(each).decode(errors="replace")
        try:
            if text.startswith(VIDEO_HEADER):
                rows = read_track(text, len(text.splitlines()) - 1)
                order += [(each[: -len(".txt")], frame) for frame in range(1, len(rows) + 1)]
                decided += list(rows)
            else:
                own = read_order(text)
                tracks = read_single(text, own)
                order += own
                decided += [tracks[track][frame - 1] for track, frame in own]
        except DatasetError as error:
            raise DatasetError(f"{storage.path(each)}: {error}") from None
    people = [split_person(track) for track, _ in order]
    columns = [[video for video, _ in people], [person for _, person in people], [frame for _, frame in order]]
    return pa.table([*columns, *np.array(decided).T], names=["video_id", "person", "frame", *facs.AUS])


def _track_files(storage: Storage) -> list[str]:
    """Return the names of all TRACK.txt below a folder, without hidden and system files."""
    names = [name for name in storage.names() if name.lower().endswith(".txt")]
    return [name for name in names if not any(is_hidden(part) for part in name.split("/"))]


def check_single(text: str, order: Sequence[tuple[str, int]]) -> list[str]:
    """Return all problems of a single file, line by line; [] if it is valid."""
    problems, lines = _head(text, SINGLE_HEADER)
    expected = [f"{track}/{frame:05d}.jpg" for track, frame in order]
    allowed, seen = set(expected), set()
    for index, line in enumerate(lines):
        location, _, values = line.partition(",")
        where = f"line {index + 2}"
        if location in seen:
            problems.append(f"{where}: {location} occurs twice")
        elif location not in allowed:
            problems.append(f"{where}: {location!r} is not in the sample file")
        elif index < len(expected) and location != expected[index]:
            problems.append(f"{where}: {location} instead of {expected[index]}")
        seen.add(location)
        problems.extend(_values(values, where))
    missing = [location for location in expected if location not in seen]
    if missing:
        problems.append(f"{len(missing)} lines are missing, the first is {missing[0]}")
    return problems


def check_track(text: str, count: int) -> list[str]:
    """Return all problems of a track's file of `count` frames; [] if it is valid."""
    problems, lines = _head(text, VIDEO_HEADER)
    for index, line in enumerate(lines):
        problems.extend(_values(line, f"line {index + 2}"))
    if len(lines) != count:
        problems.append(f"{len(lines)} frames instead of {count}")
    return problems


def _line(row: npt.NDArray[np.bool_]) -> str:
    return ",".join("1" if value else "0" for value in row)


def _head(text: str, header: str) -> tuple[list[str], list[str]]:
    """Return the problems of the file as a whole, and its lines after the header."""
    problems = []
    if "\r" in text or text.startswith("\ufeff"):
        problems.append("the file has Windows line endings or a byte order mark; write plain text")
    if not text.endswith("\n"):
        problems.append("the last line is truncated: it has no line ending")
    first, *lines = text.lstrip("\ufeff").splitlines() or [""]
    if first != header:
        problems.append(f"line 1: the header is {first[:60]!r} instead of {header!r}")
    return problems, lines


def _values(text: str, where: str) -> list[str]:
    values = text.split(",")
    if len(values) != len(facs.AUS):
        return [f"{where}: {len(values)} values instead of {len(facs.AUS)}"]
    invalid = [value for value in values if value not in {"0", "1"}]
    return [f"{where}: {invalid[0]!r} is neither 0 nor 1"] if invalid else []


def _refuse(problems: list[str]) -> None:
    if problems:
        raise DatasetError(f"not a valid submission ({len(problems)} problems): {'; '.join(problems[:5])}")
