"""File layout of a downloaded Aff-Wild2: annotation files by task and split, crops, videos, test lists.

Only the folder names of the organizers are fixed. Archives may be unpacked next to each other, inside each other, or
into other folders.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aupipe import facs
from aupipe.affwild2 import mtl
from aupipe.errors import DatasetError
from aupipe.hidden_files import is_hidden
from aupipe.manifests import decode_text, split_lines
from aupipe.storage import Storage

TASKS = ("au", "expr")
_SPLIT_FOLDERS = {"train_set": "train", "training_set": "train", "validation_set": "validation"}
_VIDEO_SUFFIXES = (".mp4", ".avi")
_CROP = re.compile(r"0*(\d{1,7})\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)
_MAX_DEPTH = 4
_AU_LIST = re.compile(r"(?<![a-z])au(?![a-z])|action_unit", re.IGNORECASE)
_PERSON = re.compile(r"(?P<video>.+)_(?P<person>left|right)")


@dataclass(frozen=True)
class Edition:
    """Folder names and classes that identify the annotations of an edition."""

    au: str  # folder of the AU task
    expr: str  # folder of the expression task
    classes: tuple[str, ...]


EDITIONS: Mapping[str, Edition] = {
    "abaw2": Edition("AU_Set", "EXPR_Set", facs.EXPRESSIONS_ABAW2),
    "abaw5": Edition("AU_Detection_Challenge", "EXPR_Classification_Challenge", facs.EXPRESSIONS),  # ABAW3 to 5
    "abaw6": Edition("AU_Detection_Challenge", "EXPR_Recognition_Challenge", facs.EXPRESSIONS),  # ABAW6 and later
    "mtl": Edition("", "", facs.EXPRESSIONS),  # the multi-task files of ABAW3, ABAW4 and ABAW7; see mtl.py
}


@dataclass(frozen=True)
class Annotation:
    """One annotation file: one task, one person in one video. Its folder determines its split."""

    name: str  # below the root; FILE#TRACK for a part of a file of several tracks
    task: str  # au | expr
    split: str  # train | validation


@dataclass(frozen=True)
class Track:
    """One person in one video, named VIDEO, VIDEO_left or VIDEO_right in the data set."""

    name: str
    annotations: Mapping[str, Annotation]  # by task
    crops: tuple[str, ...]  # folders of NNNNN.jpg, below the root; usually one or none
    video: str | None  # the base video's file, below the root

    @property
    def video_id(self) -> str:
        """Name of the base video."""
        return split_person(self.name)[0]

    @property
    def person(self) -> str:
        """The person in the video: "", left or right."""
        return split_person(self.name)[1]


@dataclass(frozen=True)
class Layout:
    """The content of an Aff-Wild2 folder."""

    root: str
    edition: str
    tracks: tuple[Track, ...]  # tracks with an annotation file, sorted by name
    tests: tuple[Track, ...]  # tracks to predict, sorted by name; see `_test_tracks`
    videos: Mapping[str, str]  # base video → file below the root
    test_lists: tuple[str, ...]
    ambiguous: tuple[str, ...]  # skipped video files, because another file has the same name
    packs: tuple[str, ...]  # folders of crop folders, below the root


def split_person(name: str) -> tuple[str, str]:
    """Return (base video, "" | "left" | "right"). Only a suffix counts: `a_left_b` is a base video."""
    match = _PERSON.fullmatch(name)
    return (match["video"], match["person"]) if match else (name, "")


def track_name(video: str, person: str) -> str:
    """Return VIDEO, VIDEO_left or VIDEO_right, from which `split_person` returns both."""
    return f"{video}_{person}" if person else video


def frame_of_crop(name: str) -> int | None:
    """Return the 1-based frame of NNNNN.jpg (or .png, in any case); None for another name."""
    match = _CROP.fullmatch(name)
    return int(match[1]) if match else None


def read_layout(root: str, edition: str | None = None) -> Layout:
    """Find all files of the data set below `root`.

    Args:
        edition: key of EDITIONS; default: the edition whose folders exist.

    Raises:
        DatasetError: there are no annotations or those of several editions, or a video is in both splits of a task.
    """
    storage = Storage(root)
    if not storage.exists():
        raise DatasetError(f"--data {root}: no such folder")
    found = _Found()
    _walk(storage, "", _MAX_DEPTH, found)
    edition = _edition(root, edition, found)
    annotations = _annotations(storage, edition, found)
    videos: dict[str, str] = {}
    ambiguous = []
    for name in sorted(found.videos):
        stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if videos.setdefault(stem, name) != name:
            ambiguous.append(name)
    names = {track for by_track in annotations.values() for track in by_track}
    packs: dict[str, frozenset[str]] = {}
    for path in found.packs:
        packs |= _packs(storage, path, names | set(videos))

    def track(name: str, annotations: Mapping[str, Annotation]) -> Track:
        crops = tuple(f"{pack}/{name}" for pack in packs if name in packs[pack])
        return Track(name, annotations, crops, videos.get(name) or videos.get(split_person(name)[0]))

    tracks = tuple(
        track(name, {task: by_track[name] for task, by_track in annotations.items() if name in by_track})
        for name in sorted(names)
    )
    with_crops = {name for pack in packs.values() for name in pack}
    tests = tuple(track(name, {}) for name in _test_tracks(storage, found.test_lists, names, with_crops, videos))
    return Layout(
        root=storage.root,
        edition=edition,
        tracks=tracks,
        tests=tests,
        videos=videos,
        test_lists=tuple(sorted(found.test_lists)),
        ambiguous=tuple(ambiguous),
        packs=tuple(packs),
    )


class _Found:
    """Files and folders found so far."""

    def __init__(self) -> None:
        self.tasks: dict[str, list[str]] = {}  # folder name → paths
        self.packs: list[str] = []
        self.multi_task: list[str] = []  # files of the multi-task challenges
        self.videos: list[str] = []
        self.test_lists: list[str] = []


_TASK_FOLDERS = {
    folder.lower(): folder for edition in EDITIONS.values() for folder in (edition.au, edition.expr) if folder
}


def _walk(storage: Storage, folder: str, depth: int, found: _Found) -> None:
    """Search `folder`. Crop packs are listed once and not searched, because they contain one file per frame."""
    folders, files = storage.children(folder)
    prefix = f"{folder}/" if folder else ""
    for name in files:
        if is_hidden(name):
            continue
        if mtl.split_of(name):
            found.multi_task.append(prefix + name)
        elif name.lower().endswith(_VIDEO_SUFFIXES):
            found.videos.append(prefix + name)
        elif name.lower().endswith(".txt") and "test_set" in name.lower():
            found.test_lists.append(prefix + name)
    for name in folders:
        if is_hidden(name):
            continue
        path = prefix + name
        if name.lower() in _TASK_FOLDERS:
            found.tasks.setdefault(_TASK_FOLDERS[name.lower()], []).append(path)
        elif name.lower().startswith("cropped_aligned"):
            found.packs.append(path)
        elif not name.lower().startswith("cropped") and depth:  # cropped/ contains the same faces, not aligned
            _walk(storage, path, depth - 1, found)


def _packs(storage: Storage, path: str, known: Collection[str]) -> dict[str, frozenset[str]]:
    """Return the crop packs at and below `path`: folder → names of its tracks.

    Unpacked archives are often deeper than intended, as in `cropped_aligned_images/batch1 (1)/cropped_aligned/VIDEO`.
    A folder with folders and without crops is therefore searched, unless it has the name of a `known` track.
    """
    tracks, deeper = [], dict[str, frozenset[str]]()
    for name in storage.children(path)[0]:
        if is_hidden(name):
            continue
        if name not in known:
            folders, files = storage.children(f"{path}/{name}")
            if any(not is_hidden(each) for each in folders) and not any(map(frame_of_crop, files)):
                deeper |= _packs(storage, f"{path}/{name}", known)
                continue
        tracks.append(name)
    return ({path: frozenset(tracks)} if tracks else {}) | deeper


def _test_tracks(
    storage: Storage, lists: Sequence[str], annotated: set[str], with_crops: set[str], videos: Mapping[str, str]
) -> list[str]:
    """Return the names of the tracks to predict, sorted.

    They are those in the test lists of the AU task, or in all test lists if none has AU in its name. Without a list
    they are the crop folders without annotation, and the videos of which no person has crops or an annotation.
    """
    own = [name for name in lists if _AU_LIST.search(name.rsplit("/", 1)[-1])]
    if lists:
        return sorted({track for name in own or lists for track in _listed(storage, name)})
    found = with_crops - annotated
    people = {split_person(name)[0] for name in annotated | found} | annotated | found
    return sorted(found | (set(videos) - people))


def _listed(storage: Storage, name: str) -> Iterator[str]:
    """Yield the tracks of a test list: one name per line, or the sample file of a submission."""
    for line in split_lines(decode_text(storage.read(name), storage.path(name), errors="replace")):
        track = line.split(",")[0].strip().strip('"').split("/")[0]
        if track.lower().endswith((*_VIDEO_SUFFIXES, ".txt")):
            track = track.rsplit(".", 1)[0]
        if track and track != "image_location":
            yield track


def _edition(root: str, name: str | None, found: _Found) -> str:
    if name is not None:
        edition = EDITIONS[name]
        if name == "mtl":
            if not found.multi_task:
                raise DatasetError(f"{root}: data.edition=mtl needs a file training_set_annotations.txt")
            return name
        if edition.au not in found.tasks and edition.expr not in found.tasks:
            raise DatasetError(f"{root}: data.edition={name} needs a folder {edition.au} or {edition.expr}")
        return name
    old = {"AU_Set", "EXPR_Set"} & set(found.tasks)
    new = set(found.tasks) - old
    if found.multi_task and not old and not new:
        return "mtl"
    if not old and not new:
        raise DatasetError(
            f"{root} is not an Aff-Wild2 folder: it contains none of {', '.join(sorted(_TASK_FOLDERS.values()))}; "
            "give the folder that contains the annotations and cropped_aligned or the videos"
        )
    if found.multi_task:
        raise DatasetError(
            f"{root} contains annotations of single tasks ({', '.join(sorted(old | new))}) and of the multi-task "
            f"challenge ({found.multi_task[0]}); choose with --set data.edition=mtl, abaw2, abaw5 or abaw6"
        )
    if old and new:
        raise DatasetError(
            f"{root} contains annotations of two editions ({', '.join(sorted(old | new))}); "
            "choose with --set data.edition=abaw2 or abaw5"
        )
    if old:
        return "abaw2"
    if {"EXPR_Classification_Challenge", "EXPR_Recognition_Challenge"} <= new:
        raise DatasetError(
            f"{root} contains annotations of ABAW3–5 and ABAW6; choose with --set data.edition=abaw5 or abaw6"
        )
    return "abaw6" if "EXPR_Recognition_Challenge" in new else "abaw5"


def _annotations(storage: Storage, edition: str, found: _Found) -> dict[str, dict[str, Annotation]]:
    """Return task → track → annotation file."""
    result: dict[str, dict[str, Annotation]] = {}
    for task, folder in zip(TASKS, (EDITIONS[edition].au, EDITIONS[edition].expr), strict=True):
        places = found.tasks.get(folder, [])
        if len(places) > 1:
            where = " and ".join(storage.path(place) for place in places)
            raise DatasetError(f"the annotations {folder} exist twice, in {where}; keep one in the data folder")
        by_track: dict[str, Annotation] = {}
        files = [a for place in places for a in _files(storage, place, task)]
        if edition == "mtl":
            files = [
                Annotation(part, task, str(mtl.split_of(name)))
                for name in found.multi_task for part in mtl.tracks_of(storage, name)
            ]  # fmt: skip
        for annotation in files:
            track = annotation.name.rpartition("#")[2] if edition == "mtl" else annotation.name.rsplit("/", 1)[-1][:-4]
            other = by_track.setdefault(track, annotation)
            if other is not annotation:
                twice = "in two splits" if other.split != annotation.split else "annotated twice"
                raise DatasetError(
                    f"video {track} is {twice}: {storage.path(other.name)} and {storage.path(annotation.name)}; "
                    "delete the file that is not in your edition"
                )
        if by_track:
            result[task] = by_track
    if not result:
        raise DatasetError(
            f"{storage.root}: Train_Set and Validation_Set contain no annotation file; unpack them again"
        )
    splits = {annotation.split for by_track in result.values() for annotation in by_track.values()}
    for split, folder in (("train", "Train_Set"), ("validation", "Validation_Set")):
        if split not in splits:
            raise DatasetError(f"{storage.root}: the {split} split is empty; put annotation files into {folder}")
    return result


def _files(storage: Storage, place: str, task: str) -> Iterator[Annotation]:
    for folder in storage.children(place)[0]:
        split = _SPLIT_FOLDERS.get(folder.lower())
        if split is None:
            continue
        for name in storage.children(f"{place}/{folder}")[1]:
            if name.lower().endswith(".txt") and not is_hidden(name):
                yield Annotation(f"{place}/{folder}/{name}", task, split)
