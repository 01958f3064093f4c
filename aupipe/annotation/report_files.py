"""The names of the files of a report, which `report.py` writes to OUT/report/ or to another folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from aupipe.storage import Storage

FOLDER = "report"  # in the output folder of an annotation
INDEX = "index.html"
SUMMARY = "faces.csv"  # one row per face and AU
_SUFFIXES = {"videos": ".html", "overlays": ".mp4", "previews": ".mp4"}
_NUMBERED = re.compile(r"\w+/[0-9]{5,}\.\w+")
VIDEO_FOLDERS = tuple(folder for folder, suffix in _SUFFIXES.items() if suffix == ".mp4")
_VIDEO = re.compile(rf"(?:(.*)/)?(?:{'|'.join(VIDEO_FOLDERS)})/[0-9]{{5,}}\.mp4", re.DOTALL)


def page(number: int) -> str:
    """Return the name of the page of a video."""
    return _name("videos", number)


def overlay(number: int) -> str:
    """Return the name of a video with its faces drawn."""
    return _name("overlays", number)


def preview(number: int) -> str:
    """Return the name of a video for the player."""
    return _name("previews", number)


def is_video(path: str, exists: Callable[[str], bool]) -> bool:
    """Return whether a file is an overlay or a preview, which shows a video once more, wherever its report is.

    Args:
        exists: whether there is a file of this path. A report has both of those that are asked for.
    """
    found = _VIDEO.fullmatch(path)
    folder = "" if found is None or found[1] is None else f"{found[1]}/"
    return found is not None and all(exists(f"{folder}{name}") for name in (SUMMARY, INDEX))


def delete_all(storage: Storage) -> int:
    """Delete a report, and return the number of its files. Other files in its folder stay."""
    names = [*(name for name in (INDEX, SUMMARY) if storage.exists(name)), *_of_videos(storage)]
    storage.delete_many(names)
    return len(names)


def delete_others(storage: Storage, written: Collection[str]) -> None:
    """Delete the files of single videos that earlier reports have written and this one has not."""
    storage.delete_many([name for name in _of_videos(storage) if name not in written])


def _of_videos(storage: Storage) -> list[str]:
    """Return the names of the files of single videos. Files that have other names are not of a report."""
    found = [name for folder, suffix in _SUFFIXES.items() for name in storage.names(folder, suffix)]
    return [name for name in found if _NUMBERED.fullmatch(name)]


def _name(folder: str, number: int) -> str:
    return f"{folder}/{number:05d}{_SUFFIXES[folder]}"
