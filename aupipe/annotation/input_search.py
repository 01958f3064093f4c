"""The search for inputs: files, folders and patterns, on disk or at a URI, and manifests that list them.

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
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from aupipe.annotation import report_files
from aupipe.annotation.inputs import FoundInputs, Input, Inputs, refused_name, text_of_name
from aupipe.annotation.schema import LEDGER, VIDEOS
from aupipe.annotation.skipped_files import SkippedFiles
from aupipe.errors import ConfigError, ManifestError, MediaError, PermissionDeniedError, redact
from aupipe.hidden_files import is_hidden
from aupipe.manifests import SUFFIXES, TextTable, read_table
from aupipe.media.image_files import IMAGE_SUFFIXES, has_image_suffix, sequence_uri
from aupipe.storage import (
    filesystem_of,
    folder_and_name,
    is_http,
    is_s3,
    is_uri,
    local_path,
    objects_below,
    signature_in,
)

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


def find_inputs(
    named: Sequence[str], limit: int | None = None, images: ImageRule = "auto"
) -> tuple[Inputs, SkippedFiles]:
    """Return the inputs that the arguments name, sorted by id, and what was skipped or could not be searched.

    A path that does not exist is kept, because it becomes a row with the reason `not_found`.

    Args:
        images: which images of folders are inputs, as `AnnotateConfig.images`.

    Raises:
        ConfigError: a folder without inputs, a pattern without matches, two inputs with one id, no access.
        ManifestError: a manifest that cannot be read.
    """
    found, skipped = FoundInputs(), SkippedFiles()
    for argument in named:
        skipped += _search(argument, images, found)
    inputs = found.inputs().sorted()
    return inputs if limit is None else inputs[:limit], skipped


def _search(argument: str, images: ImageRule, found: FoundInputs) -> SkippedFiles:
    """Find the inputs that one argument names. Return what it skips."""
    if not argument:
        raise ConfigError("--input '': an empty name")
    argument = local_path(argument)
    if argument.lower().endswith(SUFFIXES):
        found.add_all(_listed(argument))
        return SkippedFiles()
    folder, pattern = split_pattern(argument)
    if images == "sequence" and has_image_suffix(argument) and not pattern:
        raise ConfigError(f"{argument}: images=sequence reads folders of images; name the folder of this image")
    if is_uri(argument):
        return _search_remote(argument, images, found)
    before = len(found)
    if os.path.isdir(argument):
        skipped = _search_folder(argument, images, found)
        _check_found(len(found) - before, skipped, argument)
        return skipped
    if pattern:
        matches = glob.glob(glob.escape(folder) + pattern, recursive=True)
        visible, hidden = _split_hidden(matches, argument, os.path.isfile)
        each = [(_search_folder if os.path.isdir(match) else _search)(match, images, found) for match in visible]
        return _joined(each, hidden, argument, len(found) - before)
    found.add(argument, os.path.basename(argument))
    return SkippedFiles(unsearched=[] if os.path.exists(argument) else [argument])


def split_pattern(path: str) -> tuple[str, str]:
    """Return the folder that a pattern is below, and the rest with its slash; (path, "") if the path is no pattern.

    The name of a folder that exists is no pattern, whatever its characters: `Study [2]/*.mp4`.
    """
    folder, rest = path, ""
    while folder and not os.path.lexists(folder):
        folder, slash, last = folder.rpartition("/")
        rest = f"{slash}{last}{rest}"
    return (folder, rest) if glob.has_magic(rest) else (path, "")


def _split_hidden(
    matches: Iterable[str], pattern: str, exists: Callable[[str], bool]
) -> tuple[list[str], SkippedFiles]:  # fmt: skip
    """Return the matches of a pattern without hidden and system names, unless the pattern itself names them.

    Videos of reports are hidden too, unless the pattern names their folder.
    """
    parts = pattern.split("/")
    with_dots = any(part.startswith(".") and glob.has_magic(part) for part in parts)
    visible, hidden = [], SkippedFiles()
    for match in sorted(matches):
        unasked = [part for part in match.split("/") if is_hidden(part) and part not in parts]
        is_of_report = PurePosixPath(match).parent.name not in parts and report_files.is_video(match, exists)
        if all(with_dots and part.startswith(".") for part in unasked) and not is_of_report:
            visible.append(match)
        else:
            hidden.hide(match)
    return visible, hidden


def _joined(matches: Sequence[SkippedFiles], hidden: SkippedFiles, pattern: str, count: int) -> SkippedFiles:
    """Return what is skipped in all matches of a pattern, in which so many inputs were found."""
    if not matches:
        raise ConfigError("; ".join(filter(None, [f"{pattern}: nothing matches this pattern", hidden.text()])))
    skipped = sum(matches, hidden)
    _check_found(count, skipped, pattern)
    return skipped


def _search_folder(top: str, images: ImageRule, found: FoundInputs) -> SkippedFiles:
    """Find the inputs below a folder, through links; a folder that cannot be read is an input with a reason."""
    pictures: list[tuple[str, str]] = []
    skipped = SkippedFiles()
    seen: set[str] = set()
    unreadable: list[OSError] = []
    before = len(found)
    for folder, below, names in os.walk(top, onerror=unreadable.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # The link leads to a folder that has been searched.
            below.clear()
            continue
        seen.add(real)
        hidden = {name for name in (*below, *names) if is_hidden(name)}
        # They show the videos of an archive once more. An output folder may be in the folder that is searched.
        if folder != top and os.path.basename(folder) in report_files.VIDEO_FOLDERS:
            hidden.update(n for n in names if report_files.is_video(os.path.join(folder, n), os.path.isfile))
        if report_files.FOLDER in below and os.path.isdir(os.path.join(folder, LEDGER)):
            hidden.add(report_files.FOLDER)
        for name in sorted(hidden):
            skipped.hide(os.path.join(folder, name))
        below[:] = sorted(name for name in below if name not in hidden)
        relative = os.path.relpath(folder, top)
        inside = "" if relative == "." else f"{relative}/"
        outside = os.path.join(folder, "")
        videos: list[str] = []
        for name in sorted(names):
            if name in hidden:
                continue
            _, dot, last = name.rpartition(".")
            suffix = dot and dot + last.lower()
            if suffix in VIDEO_SUFFIXES and not (suffix in _SUFFIXES_OF_TEXT_TOO and _is_text(outside + name)):
                videos.append(name)
            elif suffix in IMAGE_SUFFIXES:
                pictures.append((outside + name, inside + name))
            else:
                skipped.add(outside + name)
                if os.path.islink(outside + name) and not os.path.exists(outside + name):
                    skipped.unsearched.append(outside + name)  # It may lead to a folder of a disk that is away.
        found.add_files([outside + name for name in videos], [inside + name for name in videos])
    _add_images(pictures, images, len(found) > before, top, found, skipped)
    for error in unreadable:
        folder = str(error.filename)
        found.add_all([_unlisted(folder, _name_in(top) if folder == top else os.path.relpath(folder, top), error)])
        skipped.unsearched.append(folder)
    return skipped


def _unlisted(folder: str, video_id: str, error: OSError) -> Input:
    """Return the input that a folder becomes if it cannot be listed."""
    code = (PermissionDeniedError if isinstance(error, PermissionError) else MediaError).reason
    uri = text_of_name(folder)
    reason = f"{code}: {redact(uri)}: this folder cannot be listed ({error.strerror})"
    return Input(uri, text_of_name(video_id), refused=reason)


def _add_images(
    pictures: Sequence[tuple[str, str]], rule: ImageRule, with_videos: bool, top: str, found: FoundInputs,
    skipped: SkippedFiles,
) -> None:  # fmt: skip
    """Add the inputs that images below a folder are by the rule; count those that are skipped.

    Args:
        pictures: path or URI of each image, and its path below `top`.
        with_videos: whether videos are below `top` too.
    """
    if rule == "skip" or (rule == "auto" and with_videos):
        for path, _ in pictures:
            skipped.add(path)
    elif rule != "sequence":
        for path, name in pictures:
            found.add(path, name)
    else:
        folders = {path.rpartition("/")[0]: name.rpartition("/")[0] for path, name in pictures}
        for folder, name in folders.items():
            found.add(sequence_uri(folder), name or _name_in(top))


def _is_text(path: str) -> bool:
    """Return whether a file begins with text. No video with one of the ambiguous suffixes does."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
        codecs.getincrementaldecoder("utf-8")().decode(head)  # The last character may be incomplete.
    except (OSError, UnicodeDecodeError):  # An unreadable file becomes an input with a reason.
        return False
    return bool(head) and b"\0" not in head


def _search_remote(uri: str, images: ImageRule, found: FoundInputs, *, matched: bool = False) -> SkippedFiles:
    """Find the inputs of a file, a folder or a pattern at a URI. HTTP has no folders: a URL is a file.

    Args:
        matched: a pattern matches it, so that it may be a folder without inputs.
    """
    suffix = PurePosixPath(uri).suffix.lower()
    is_file = (suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES) and not glob.has_magic(uri)
    if is_file or is_http(uri):
        found.add(uri, _name_in(uri))
        return SkippedFiles()
    protocol = uri.partition("://")[0]
    try:
        filesystem, top = filesystem_of(uri)
        filesystem.invalidate_cache()  # A second listing in a run finds what has changed since the first.
        if glob.has_magic(top) and not filesystem.exists(top):
            visible, hidden = _split_hidden(filesystem.glob(top), top, filesystem.isfile)
            before = len(found)
            matches = [_search_remote(f"{protocol}://{path}", images, found, matched=True) for path in visible]
            return _joined(matches, hidden, uri, len(found) - before)
        files: Iterable[tuple[str, dict[str, Any]]] = ()
        if is_s3(uri):
            files = objects_below(filesystem, top)
        elif filesystem.isdir(top):
            files = sorted(filesystem.find(top, detail=True).items())
        before = len(found)
        skipped = _add_listed(files, protocol, str(top).rstrip("/"), images, found)
        is_there = skipped is not None or matched or filesystem.isfile(top)
    except (OSError, ValueError, ImportError, BotoCoreError) as error:
        raise ConfigError(redact(f"{uri} cannot be listed: {error}")) from None
    if skipped is None:  # no folder
        found.add(uri, _name_in(uri))
        return SkippedFiles(unsearched=[] if is_there else [uri])
    if not matched:
        _check_found(len(found) - before, skipped, uri)
    return skipped


def _add_listed(
    files: Iterable[tuple[str, Mapping[str, Any]]], protocol: str, top: str, images: ImageRule, found: FoundInputs
) -> SkippedFiles | None:
    """Add the inputs among the files below a remote folder. Return what is skipped; None if there is no file.

    Args:
        files: path and description of each, in the order of the paths.
    """
    pictures: list[tuple[str, str]] = []
    skipped: SkippedFiles | None = None
    hidden_folders: set[str] = set()
    reports: set[str] = set()
    of_reports: set[str] = set()  # the files that every report has, which sort before its videos
    before = len(found)
    for path, info in files:
        skipped = skipped or SkippedFiles()
        name = path[len(top) + 1 :]
        parts = name.split("/")
        output, is_of_ledger, _ = f"/{name}".partition(f"/{LEDGER}/")
        if is_of_ledger:  # sorts before the report
            reports.add(f"{output}/{report_files.FOLDER}"[1:])
        first_hidden = next((at for at, part in enumerate(parts) if is_hidden(part)), None)
        if reports and first_hidden is None:
            first_hidden = next((at for at in range(len(parts)) if "/".join(parts[: at + 1]) in reports), None)
        if parts[-1] in (report_files.SUMMARY, report_files.INDEX):
            of_reports.add(name)
        if first_hidden is None and len(parts) > 1 and report_files.is_video(name, of_reports.__contains__):
            first_hidden = len(parts) - 1
        if first_hidden is not None:
            hidden_folders.add("/".join(parts[: first_hidden + 1]))
            continue
        suffix = os.path.splitext(path)[1].lower()
        if suffix in VIDEO_SUFFIXES:
            found.add(f"{protocol}://{path}", name, signature_in(info) or None)
        elif suffix in IMAGE_SUFFIXES:
            pictures.append((f"{protocol}://{path}", name))
        else:
            skipped.add(f"{protocol}://{path}")
    if skipped is not None:
        for name in sorted(hidden_folders):
            skipped.hide(f"{protocol}://{top}/{name}")
        _add_images(pictures, images, len(found) > before, f"{protocol}://{top}", found, skipped)
    return skipped


def _name_in(place: str) -> str:
    """Return the last part of a path or URI, without the query of a web address, which may hold secrets."""
    path = re.split(r"[?#]", place)[0] if is_http(place) else place
    return path.rstrip("/").rsplit("/", 1)[-1]


def _check_found(count: int, skipped: SkippedFiles, top: str) -> None:
    if not count:
        raise ConfigError(
            f"{top}: no video or image in this folder ({skipped.text() or '0 other files'}); "
            "name a file to try it anyway"
        )


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
        place = text_of_name(table.place("uri", row))
        start_s, end_s = (_seconds(table, column, row) for column in ("start_s", "end_s"))
        absolute = is_uri(place) or os.path.isabs(place)
        video_id = table.text("video_id", row) or (_name_in(place) if absolute else place)
        uri = place if absolute else storage.path(place)
        yield Input(
            text_of_name(uri), video_id, start_s, end_s,
            {column: values[row] for column, values in table.columns.items() if column in further},
            refused_name(uri) or _refused(video_id, start_s, end_s),
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
    # Only control characters, because names of files have other characters that are not printable, such as the narrow
    # space in those of recordings by macOS, and the joiners of several scripts.
    if any(unicodedata.category(character) == "Cc" for character in video_id):
        return f"bad_video_id: {video_id!r} contains a control character; give a name without it"
    if ".." in parts or parts[0] in {"", "~"}:
        return f"bad_video_id: {video_id!r} would lead out of the output folder; give a name or a path below it"
    if not PurePosixPath(video_id).name:
        return f"bad_video_id: {video_id!r} names the output folder itself; give a name or a path below it"
    if end_s is not None and end_s <= (start_s or 0.0):
        return f"bad_range: it ends at {end_s:g} s, before it begins"
    return ""
