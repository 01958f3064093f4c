"""From what the user named to videos: files, folders, patterns, on disk or at a URI, and manifests that list them.

A manifest is CSV, Parquet or JSONL (an object a line) with the column `uri` (relative to the manifest, absolute, or a
URI) and, if wanted, `video_id`, `start_s` and `end_s` (media time; the end is not included). Further columns stand in
videos.parquet beside the video.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.annotation.schema import VIDEOS
from aupipe.errors import ConfigError, ManifestError, shown
from aupipe.images.manifest import text_columns
from aupipe.storage import Storage, filesystem_of, is_http, is_uri, of_file

# A folder is searched for these; a file that is named outright is tried whatever its suffix.
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mpe", ".m2v", ".ts", ".m2ts", ".mts", ".wmv"}
    | {".asf", ".flv", ".3gp", ".3g2", ".ogv", ".mxf", ".vob", ".mjpeg", ".gif"}
)
_MANIFESTS = (".csv", ".parquet", ".jsonl")
_OURS = {"uri", "video_id", "start_s", "end_s"}


@dataclass(frozen=True)
class Input:
    """One video to annotate. `video_id` is its path below the folder that was named, or its name.

    Attributes:
        start_s, end_s: the part that is asked for, in media time; None: from the first, to the last frame.
        further: a manifest's other columns.
        refused: why it is set aside without a look at it; "" if it is not.
    """

    uri: str
    video_id: str
    start_s: float | None = None
    end_s: float | None = None
    further: Mapping[str, str] = field(default_factory=dict, compare=False)
    refused: str = ""

    def asked(self, sample_fps: float | None) -> str:
        """Names what is asked of the file's content; "" for all of it."""
        if self.start_s is None and self.end_s is None and sample_fps is None:
            return ""
        start, end = ("" if limit is None else f"{limit:g} s" for limit in (self.start_s, self.end_s))
        return f"[{start}, {end})" + ("" if sample_fps is None else f" at {sample_fps:g}/s")


def find_inputs(named: Sequence[str], limit: int | None = None) -> tuple[list[Input], int]:
    """The videos that the arguments name, sorted by id, and how many other files were passed over in folders.

    A path that is not there is kept: it becomes a row that says so.

    Raises:
        ConfigError: a folder without videos, a pattern without matches, two inputs with one id, no access.
        ManifestError: a manifest that cannot be read.
    """
    found: dict[str, Input] = {}
    passed_over = 0
    for argument in named:
        inputs, others = _search(argument)
        passed_over += others
        for video in inputs:
            clash = found.setdefault(video.video_id, video)
            if clash != video:
                raise ConfigError(
                    f"{shown(clash.uri)} and {shown(video.uri)} would both be video_id {video.video_id!r}; "
                    "name a common parent folder, or give them ids in a manifest, so that they differ"
                )
    return [found[key] for key in sorted(found)][:limit], passed_over


def _search(argument: str) -> tuple[list[Input], int]:
    """The videos that one argument names, and how many other files it passes over."""
    if not argument:
        raise ConfigError("--input '': an empty name")
    if argument.lower().endswith(_MANIFESTS):
        return list(_listed(argument)), 0
    if is_uri(argument):
        return _search_remote(argument)
    if os.path.isdir(argument):
        return _search_folder(argument)
    if os.path.lexists(argument):
        return [_input(argument, os.path.basename(argument))], 0
    if glob.has_magic(argument):
        matches = [_search(match) for match in sorted(glob.glob(argument, recursive=True))]
        if not matches:
            raise ConfigError(f"{argument}: nothing matches this pattern")
        return [video for videos, _ in matches for video in videos], sum(others for _, others in matches)
    return [_input(argument, os.path.basename(argument))], 0


def _search_folder(top: str) -> tuple[list[Input], int]:
    """Videos below a folder, through links; a folder that cannot be read is an input that cannot be done."""
    videos: list[Input] = []
    others = 0
    seen: set[str] = set()
    unreadable: list[OSError] = []
    for folder, below, names in os.walk(top, onerror=unreadable.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                videos.append(_input(path, Path(os.path.relpath(path, top)).as_posix()))
            else:
                others += 1
    videos += [_input(str(error.filename), os.path.relpath(error.filename, top)) for error in unreadable]
    return _some(videos, others, top)


def _search_remote(uri: str) -> tuple[list[Input], int]:
    """A file, a folder or a pattern at a URI. What HTTP serves has no folders: it is taken as it is named."""
    named = [_input(uri, _name_in(uri))]
    is_video = PurePosixPath(uri).suffix.lower() in VIDEO_SUFFIXES and not glob.has_magic(uri)
    if is_video or is_http(uri):
        return named, 0
    protocol = uri.partition("://")[0]
    try:
        filesystem, top = filesystem_of(uri)
        if glob.has_magic(top) and not filesystem.exists(top):
            matches = [_search_remote(f"{protocol}://{path}") for path in sorted(filesystem.glob(top))]
            if not matches:
                raise ConfigError(f"{uri}: nothing matches this pattern")
            return [video for videos, _ in matches for video in videos], sum(others for _, others in matches)
        if not filesystem.isdir(top):
            return named, 0
        paths = [str(path) for path in sorted(filesystem.find(top)) if not path.rsplit("/", 1)[-1].startswith(".")]
    except (OSError, ValueError, ImportError, BotoCoreError) as error:
        raise ConfigError(shown(f"{uri} cannot be listed: {error}")) from None
    below = len(str(top).rstrip("/")) + 1
    videos = [
        _input(f"{protocol}://{path}", path[below:])
        for path in paths if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES
    ]  # fmt: skip
    return _some(videos, len(paths) - len(videos), uri)


def _name_in(place: str) -> str:
    """The last part of a path or URI, without what follows a web address: that may be a signature, or other secrets."""
    path = re.split(r"[?#]", place)[0] if is_http(place) else place
    return path.rstrip("/").rsplit("/", 1)[-1]


def _some(videos: list[Input], others: int, top: str) -> tuple[list[Input], int]:
    if not videos:
        raise ConfigError(f"{top}: no video in this folder ({others} other files); name a file to try it anyway")
    return videos, others


def _listed(path: str) -> Iterator[Input]:
    """The videos of a manifest."""
    storage, name = of_file(path)
    try:
        columns = _json_columns(storage, name) if name.lower().endswith(".jsonl") else text_columns(storage, name)
    except (OSError, BotoCoreError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from None
    if "uri" not in columns or not columns["uri"]:
        raise ManifestError(f"{path} names no video: it has the columns {', '.join(columns)}; a column `uri` is needed")
    taken = (set(columns) - _OURS) & {*VIDEOS.names, ""}
    if taken:
        raise ManifestError(f"{path}: videos.parquet has a column {min(taken)!r} of its own; give yours another name")
    for number in range(len(columns["uri"])):
        row = {column: values[number] for column, values in columns.items()}
        where = f"{path}: video {number + 1}"
        if not row["uri"]:
            raise ManifestError(f"{where} has no uri")
        start_s, end_s = (_seconds(row.get(column, ""), column, where) for column in ("start_s", "end_s"))
        absolute = is_uri(row["uri"]) or os.path.isabs(row["uri"])
        video_id = row.get("video_id") or (_name_in(row["uri"]) if absolute else row["uri"])
        yield Input(
            row["uri"] if absolute else storage.path(row["uri"]), video_id, start_s, end_s,
            {column: text for column, text in row.items() if column not in _OURS}, _refused(video_id, start_s, end_s),
        )  # fmt: skip


def _json_columns(storage: Storage, name: str) -> dict[str, list[str]]:
    """Every key of an object a line, as text, "" where nothing stands."""
    rows: list[dict[str, object]] = []
    for number, line in enumerate(storage.read(name).decode("utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{storage.path(name)}:{number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ManifestError(f'{storage.path(name)}:{number} is no JSON object, as in {{"uri": "a.mp4"}}')
        rows.append(row)
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: ["" if row.get(key) is None else str(row[key]) for row in rows] for key in keys}


def _seconds(text: str, column: str, where: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ManifestError(f"{where} has {column} {text!r}; seconds are meant, or nothing") from None


def _refused(video_id: str, start_s: float | None, end_s: float | None) -> str:
    parts = video_id.replace("\\", "/").split("/")
    if ".." in parts or parts[0] in {"", "~"} or not video_id.isprintable():
        return f"bad_video_id: {video_id!r} would lead out of the output folder; give a name or a path below it"
    if end_s is not None and end_s <= (start_s or 0.0):
        return f"bad_range: it ends at {end_s:g} s, before it begins"
    return ""


def _input(uri: str, video_id: str) -> Input:
    """Tables hold text: a name that is no UTF-8 gets its odd bytes written as \\x.., and cannot be opened by that."""

    def as_text(name: str) -> str:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    return Input(as_text(uri), as_text(video_id))
