"""Finding inputs: files, folders and patterns, on disk or at a URI, and manifests that list them.

A manifest is CSV, TSV, Parquet or JSONL (an object a line), read by the rules of `aupipe.manifests`, with the column
`uri` (relative to the manifest, absolute, or a URI) and, if wanted, `video_id`, `start_s` and `end_s` (seconds of media
time; the end is not included; no value, or an end of `inf`, is no limit). Further columns are copied to
videos.parquet.
"""

from __future__ import annotations

import codecs
import glob
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.annotation.schema import VIDEOS
from aupipe.errors import ConfigError, ManifestError, redact
from aupipe.hidden_files import is_hidden
from aupipe.manifests import SUFFIXES, TextTable, read_table
from aupipe.media.image_files import IMAGE_SUFFIXES, has_image_suffix, sequence_uri
from aupipe.storage import filesystem_of, folder_and_name, is_http, is_uri, local_path

# A folder is searched for these, in any case; a file that is named outright is tried whatever its suffix. Left out,
# because most files with them are no video that can be read by itself: .dat, .bin, .vid, .rec and .ps (any data), .swf
# (drawings), .m4s (a stretch of a stream without its header), .lrv (GoPro's small copy of a video beside it) and .ogg
# (sound). Images are taken by another rule, `ImageRule`.
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mp4v", ".mov", ".qt", ".mqv", ".3gp", ".3gpp", ".3g2", ".3gp2", ".k3g", ".f4v", ".ismv", ".mj2"}
    | {".insv", ".360", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".xvid", ".amv", ".flv", ".ogv", ".ogm", ".mxf"}
    | {".mpg", ".mpeg", ".mpe", ".mpv", ".mpv2", ".mp2v", ".m1v", ".m2v", ".m2p", ".vob", ".vro", ".evo", ".mod"}
    | {".ts", ".m2ts", ".mts", ".m2t", ".tp", ".trp", ".tod", ".mpegts", ".wmv", ".asf", ".wm", ".dvr-ms", ".wtv"}
    | {".h264", ".264", ".avc", ".h26l", ".h265", ".265", ".hevc", ".h266", ".266", ".vvc", ".vc1", ".ivf", ".obu"}
    | {".mjpeg", ".mjpg", ".gif", ".apng", ".y4m", ".rm", ".rmvb", ".dv", ".dif", ".nut", ".dav"}
    | {".gxf", ".lxf", ".cine", ".nsv", ".nuv", ".ty", ".ifv", ".kux", ".h261", ".h263"}
)
# Source code and tables also have these suffixes (TypeScript, Qt's translations, Modula-2, data interchange).
_SUFFIXES_OF_TEXT_TOO = frozenset({".ts", ".mts", ".mod", ".dif"})
ImageRule = Literal["auto", "each", "sequence", "skip"]  # see `AnnotateConfig.images`
_OURS = {"uri", "video_id", "start_s", "end_s"}


@dataclass(frozen=True, slots=True)
class Input:
    """One video, image or sequence of images to annotate.

    Attributes:
        uri: path or URI of the file; of a sequence, of its folder, with a slash at the end.
        video_id: path below the folder that was named, or the name.
        start_s, end_s: the part to annotate, in media time; None: from the first, to the last frame.
        further: a manifest's other columns.
        refused: the reason why it is quarantined unopened; "" if it is not.
        signature: its `signature_in` a remote listing; None if it was not listed or the listing gives none.
    """

    uri: str
    video_id: str
    start_s: float | None = None
    end_s: float | None = None
    further: Mapping[str, str] = field(default_factory=dict, compare=False)
    refused: str = ""
    signature: str | None = field(default=None, compare=False)

    def asked(self, sample_fps: float | None) -> str:
        """Return the name of the part and rate of the file to annotate; "" for all of it."""
        if self.start_s is None and self.end_s is None and sample_fps is None:
            return ""
        start, end = ("" if limit is None else f"{limit:g} s" for limit in (self.start_s, self.end_s))
        return f"[{start}, {end})" + ("" if sample_fps is None else f" at {sample_fps:g}/s")


_EXAMPLES = 3
_SUFFIXES_SHOWN = 8


@dataclass
class SkippedFiles:
    """Files and folders that were skipped below the folders that were named.

    Attributes:
        suffixes: the number of files by suffix, in lower case; "" for files without one.
        examples: the first few of these files.
        hidden: the number of hidden and system files and folders; such a folder is not opened and counts once.
        hidden_examples: the first few of them.
        images: how many of the files are images that could be inputs.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    hidden: int = 0
    hidden_examples: list[str] = field(default_factory=list)
    images: int = 0

    @property
    def files(self) -> int:
        """The number of files that are neither inputs nor hidden."""
        return self.suffixes.total()

    def add(self, path: str) -> None:
        """Count a file that is no input by its suffix."""
        self.images += has_image_suffix(path)
        self.suffixes[_as_text(os.path.splitext(path)[1].lower())] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(_as_text(path))

    def hide(self, path: str) -> None:
        """Count a hidden or system file or folder."""
        self.hidden += 1
        if len(self.hidden_examples) < _EXAMPLES:
            self.hidden_examples.append(_as_text(path))

    def __add__(self, other: SkippedFiles) -> SkippedFiles:
        return SkippedFiles(
            self.suffixes + other.suffixes, (self.examples + other.examples)[:_EXAMPLES],
            self.hidden + other.hidden, (self.hidden_examples + other.hidden_examples)[:_EXAMPLES],
            self.images + other.images,
        )  # fmt: skip

    def text(self) -> str:
        """Return a description in one line; "" if nothing was skipped."""
        parts = []
        if self.files:
            ordered = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
            kinds = [f"{count} {suffix or 'without suffix'}" for suffix, count in ordered[:_SUFFIXES_SHOWN]]
            if more := sum(count for _, count in ordered[_SUFFIXES_SHOWN:]):
                kinds.append(f"{more} with other suffixes")
            parts.append(f"{self.files} other files skipped: {', '.join(kinds)} ({_first(self.examples)})")
        if self.images:
            parts.append(
                f"{self.images} of them are images; take them with --set images=each (every image is an input) or "
                "--set images=sequence (the images of a folder are one)"
            )
        if self.hidden:
            parts.append(f"{self.hidden} hidden or system files and folders skipped ({_first(self.hidden_examples)})")
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """Return the counts for run.json."""
        return {
            "files": self.files,
            "suffixes": dict(sorted(self.suffixes.items())),
            "images": self.images,
            "first": [redact(path) for path in self.examples],
            "hidden": self.hidden,
            "hidden_first": [redact(path) for path in self.hidden_examples],
        }


def _first(paths: Sequence[str]) -> str:
    return "first: " + ", ".join(redact(path) if path.isprintable() else repr(redact(path)) for path in paths)


def find_inputs(
    named: Sequence[str], limit: int | None = None, images: ImageRule = "auto"
) -> tuple[list[Input], SkippedFiles]:
    """Return the inputs that the arguments name, sorted by id, and what was skipped in folders.

    A path that does not exist is kept, because it becomes a row with the reason `not_found`.

    Args:
        images: which images of folders are inputs, as `AnnotateConfig.images`.

    Raises:
        ConfigError: a folder without inputs, a pattern without matches, two inputs with one id, no access.
        ManifestError: a manifest that cannot be read.
    """
    found: dict[str, Input] = {}
    skipped = SkippedFiles()
    for argument in named:
        inputs, others = _search(argument, images)
        skipped += others
        for video in inputs:
            clash = found.setdefault(video.video_id, video)
            if clash != video:
                raise ConfigError(
                    f"{redact(clash.uri)} and {redact(video.uri)} would both be video_id {video.video_id!r}; "
                    "name a common parent folder, or give them ids in a manifest, so that they differ"
                )
    return [found[key] for key in sorted(found)][:limit], skipped


def _search(argument: str, images: ImageRule) -> tuple[list[Input], SkippedFiles]:
    """Return the inputs that one argument names, and what it skips."""
    if not argument:
        raise ConfigError("--input '': an empty name")
    argument = local_path(argument)
    if argument.lower().endswith(SUFFIXES):
        return list(_listed(argument)), SkippedFiles()
    if images == "sequence" and has_image_suffix(argument) and not glob.has_magic(argument):
        raise ConfigError(f"{argument}: images=sequence reads folders of images; name the folder of this image")
    if is_uri(argument):
        return _search_remote(argument, images)
    if os.path.isdir(argument):
        return _search_folder(argument, images)
    if os.path.lexists(argument):
        return [_input(argument, os.path.basename(argument))], SkippedFiles()
    if glob.has_magic(argument):
        visible, hidden = _split_hidden(glob.glob(argument, recursive=True), argument)
        return _joined([_search(match, images) for match in visible], hidden, argument)
    return [_input(argument, os.path.basename(argument))], SkippedFiles()


def _split_hidden(matches: Iterable[str], pattern: str) -> tuple[list[str], SkippedFiles]:
    """Return the matches of a pattern without hidden and system names, unless the pattern itself names them."""
    parts = pattern.split("/")
    with_dots = any(part.startswith(".") and glob.has_magic(part) for part in parts)
    visible, hidden = [], SkippedFiles()
    for match in sorted(matches):
        unasked = [part for part in match.split("/") if is_hidden(part) and part not in parts]
        if all(with_dots and part.startswith(".") for part in unasked):
            visible.append(match)
        else:
            hidden.hide(match)
    return visible, hidden


def _joined(
    matches: Sequence[tuple[list[Input], SkippedFiles]], hidden: SkippedFiles, pattern: str
) -> tuple[list[Input], SkippedFiles]:
    if not matches:
        raise ConfigError("; ".join(filter(None, [f"{pattern}: nothing matches this pattern", hidden.text()])))
    return [video for videos, _ in matches for video in videos], sum((skipped for _, skipped in matches), hidden)


def _search_folder(top: str, images: ImageRule) -> tuple[list[Input], SkippedFiles]:
    """Return the inputs below a folder, through links; a folder that cannot be read is an input with a reason."""
    videos: list[Input] = []
    pictures: list[tuple[str, str]] = []
    skipped = SkippedFiles()
    seen: set[str] = set()
    unreadable: list[OSError] = []
    for folder, below, names in os.walk(top, onerror=unreadable.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # The link leads to a folder that has been searched.
            below.clear()
            continue
        seen.add(real)
        for name in sorted([*below, *names]):
            if is_hidden(name):
                skipped.hide(os.path.join(folder, name))
        below[:] = sorted(name for name in below if not is_hidden(name))
        for name in sorted(name for name in names if not is_hidden(name)):
            path = os.path.join(folder, name)
            suffix = os.path.splitext(name)[1].lower()
            if suffix in VIDEO_SUFFIXES and not (suffix in _SUFFIXES_OF_TEXT_TOO and _is_text(path)):
                videos.append(_input(path, Path(os.path.relpath(path, top)).as_posix()))
            elif suffix in IMAGE_SUFFIXES:
                pictures.append((path, Path(os.path.relpath(path, top)).as_posix()))
            else:
                skipped.add(path)
    videos += _chosen_images(pictures, images, bool(videos), top, skipped)
    videos += [_input(str(error.filename), os.path.relpath(error.filename, top)) for error in unreadable]
    return _some(videos, skipped, top)


def _chosen_images(
    pictures: Sequence[tuple[str, str]], rule: ImageRule, with_videos: bool, top: str, skipped: SkippedFiles
) -> list[Input]:
    """Return the inputs that images below a folder are by the rule; count those that are skipped.

    Args:
        pictures: path or URI of each image, and its path below `top`.
        with_videos: whether videos are below `top` too.
    """
    if rule == "skip" or (rule == "auto" and with_videos):
        for path, _ in pictures:
            skipped.add(path)
        return []
    if rule != "sequence":
        return [_input(path, name) for path, name in pictures]
    folders = {path.rpartition("/")[0]: name.rpartition("/")[0] for path, name in pictures}
    return [_input(sequence_uri(folder), name or _name_in(top)) for folder, name in folders.items()]


def _is_text(path: str) -> bool:
    """Return whether a file begins with text. No video with one of the ambiguous suffixes does."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
        codecs.getincrementaldecoder("utf-8")().decode(head)  # The last character may be incomplete.
    except (OSError, UnicodeDecodeError):  # An unreadable file becomes an input with a reason.
        return False
    return bool(head) and b"\0" not in head


def _search_remote(uri: str, images: ImageRule) -> tuple[list[Input], SkippedFiles]:
    """Return the inputs of a file, a folder or a pattern at a URI. HTTP has no folders: a URL is a file."""
    named = [_input(uri, _name_in(uri))]
    suffix = PurePosixPath(uri).suffix.lower()
    is_file = (suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES) and not glob.has_magic(uri)
    if is_file or is_http(uri):
        return named, SkippedFiles()
    protocol = uri.partition("://")[0]
    try:
        filesystem, top = filesystem_of(uri)
        filesystem.invalidate_cache()  # A second listing in a run finds what has changed since the first.
        if glob.has_magic(top) and not filesystem.exists(top):
            visible, hidden = _split_hidden(filesystem.glob(top), top)
            return _joined([_search_remote(f"{protocol}://{path}", images) for path in visible], hidden, uri)
        if not filesystem.isdir(top):
            return named, SkippedFiles()
        found: dict[str, dict[str, Any]] = filesystem.find(top, detail=True)
    except (OSError, ValueError, ImportError, BotoCoreError) as error:
        raise ConfigError(redact(f"{uri} cannot be listed: {error}")) from None
    videos: list[Input] = []
    pictures: list[tuple[str, str]] = []
    skipped = SkippedFiles()
    hidden_folders: set[str] = set()
    for path, info in sorted(found.items()):
        name = path[len(str(top).rstrip("/")) + 1 :]
        parts = name.split("/")
        first_hidden = next((at for at, part in enumerate(parts) if is_hidden(part)), None)
        if first_hidden is not None:
            hidden_folders.add("/".join(parts[: first_hidden + 1]))
        elif PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES:
            videos.append(_input(f"{protocol}://{path}", name, signature_in(info) or None))
        elif PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES:
            pictures.append((f"{protocol}://{path}", name))
        else:
            skipped.add(f"{protocol}://{path}")
    for name in sorted(hidden_folders):
        skipped.hide(f"{protocol}://{str(top).rstrip('/')}/{name}")
    videos += _chosen_images(pictures, images, bool(videos), uri, skipped)
    return _some(videos, skipped, uri)


def _name_in(place: str) -> str:
    """Return the last part of a path or URI, without the query of a web address, which may hold secrets."""
    path = re.split(r"[?#]", place)[0] if is_http(place) else place
    return path.rstrip("/").rsplit("/", 1)[-1]


def _some(videos: list[Input], skipped: SkippedFiles, top: str) -> tuple[list[Input], SkippedFiles]:
    if not videos:
        raise ConfigError(
            f"{top}: no video or image in this folder ({skipped.text() or '0 other files'}); "
            "name a file to try it anyway"
        )
    return videos, skipped


def _listed(path: str) -> Iterator[Input]:
    """Yield the inputs of a manifest."""
    storage, name = folder_and_name(path)
    table = read_table(storage, name, "uri", _OURS)
    if not len(table):
        raise ManifestError(f"{path} names no video; give each video's path in the column `uri`")
    further = table.columns.keys() - _OURS
    if taken := further & set(VIDEOS.names):
        raise ManifestError(f"{path}: videos.parquet has a column {min(taken)!r} of its own; give yours another name")
    for row in range(len(table)):
        place = _as_text(table.place("uri", row))
        start_s, end_s = (_seconds(table, column, row) for column in ("start_s", "end_s"))
        absolute = is_uri(place) or os.path.isabs(place)
        video_id = table.text("video_id", row) or (_name_in(place) if absolute else place)
        yield Input(
            place if absolute else storage.path(place), video_id, start_s, end_s,
            {column: values[row] for column, values in table.columns.items() if column in further},
            _refused(video_id, start_s, end_s),
        )  # fmt: skip


def _seconds(table: TextTable, column: str, row: int) -> float | None:
    """Return a limit in seconds; None if there is none."""
    try:
        seconds = table.number(column, row)
    except ValueError:
        seconds = math.nan
    if seconds == (math.inf if column == "end_s" else -math.inf):
        return None
    if seconds is not None and not math.isfinite(seconds):
        cell = table.columns[column][row]
        raise ManifestError(f"{table.where(row)} has {column} {cell!r}; allowed are seconds, as 3723.5, or nothing")
    return seconds


def _refused(video_id: str, start_s: float | None, end_s: float | None) -> str:
    parts = video_id.replace("\\", "/").split("/")
    if ".." in parts or parts[0] in {"", "~"} or not video_id.isprintable():
        return f"bad_video_id: {video_id!r} would lead out of the output folder; give a name or a path below it"
    if end_s is not None and end_s <= (start_s or 0.0):
        return f"bad_range: it ends at {end_s:g} s, before it begins"
    return ""


def signature_in(info: Mapping[str, Any]) -> str:
    """Return the size and the ETag or modification time in fsspec's description of a file; "" if it has neither."""
    changed = next((info[key] for key in ("ETag", "mtime", "LastModified", "Last-Modified") if info.get(key)), "")
    return f"{info.get('size')}:{changed}" if changed else ""


def _input(uri: str, video_id: str, signature: str | None = None) -> Input:
    return Input(_as_text(uri), _as_text(video_id), signature=signature)


def _as_text(name: str) -> str:
    """Return a name as text for tables. Invalid UTF-8 becomes \\x.., and such a name does not open the file."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
