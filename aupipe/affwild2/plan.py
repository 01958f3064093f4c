"""Plan of a face store from an Aff-Wild2 folder: the content of each part, before any crop is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aupipe.affwild2.layout import TASKS, Layout, Track, frame_of_crop
from aupipe.affwild2.mtl import labels_of, rows_and_digest
from aupipe.affwild2.splits import official
from aupipe.errors import DatasetError
from aupipe.facestore.schema import FILE_ROWS, SPLITS, TEST
from aupipe.facestore.write import shard_name
from aupipe.hidden_files import is_hidden
from aupipe.media.input_errors import INPUT_ERRORS
from aupipe.media.probe import probe
from aupipe.storage import Storage

Source = Literal["crops", "videos"]


@dataclass(frozen=True)
class TrackSlice:
    """One person in a slice of a video."""

    name: str
    person: str
    annotations: tuple[tuple[str, str], ...]  # (task, file below the root) whose labels count in this split
    crops: tuple[str, ...]


@dataclass(frozen=True)
class VideoSlice:
    """Annotation rows `first` … `stop` − 1 (0-based; row r belongs to frame r + 1) of people of one video.

    Attributes:
        tracks: one track when crops are packed; when the video is decoded, all tracks of the split if they fit a part.
        others: further people of a video that is decoded, in other slices or splits or without labels. Each person's
            face is known only beside those of the others.
    """

    video_id: str
    tracks: tuple[TrackSlice, ...]
    video: str | None
    first: int
    stop: int
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardPlan:
    """The content of one part. `name` contains a hash of everything that the part depends on."""

    name: str
    split: str
    pieces: tuple[VideoSlice, ...]

    @property
    def rows(self) -> int:
        """Number of annotation rows."""
        return sum((piece.stop - piece.first) * len(piece.tracks) for piece in self.pieces)


@dataclass(frozen=True)
class Plan:
    """All parts, and counts that are known before any part is made.

    Attributes:
        outcomes: track → reason → count: images without a row, test videos with nothing to pack.
        leaked: base videos in train for one task and in validation for the other.
        videos: video file → signature.
    """

    units: tuple[ShardPlan, ...]
    outcomes: Mapping[str, Mapping[str, int]]
    leaked: frozenset[str]
    videos: Mapping[str, str]


def make_plan(layout: Layout, *, source: Source, settings: Mapping[str, object]) -> Plan:
    """Return units of at most FILE_ROWS annotation rows, by split, video, person, frame.

    Args:
        settings: further settings that the bytes of a part depend on (detector, alignment).

    Raises:
        DatasetError: an annotation file is invalid, or no line of a task's split is valid.
    """
    storage = Storage(layout.root)
    splits, leaked = official(layout.tracks)
    lengths: dict[str, int] = {}  # annotation file → rows
    videos = _video_signatures(layout, storage)
    digests = dict(videos)  # annotation file, crop folder or video → hash or signature
    outcomes: dict[str, Counter[str]] = {}
    for track in layout.tracks:
        tally = outcomes.setdefault(track.name, Counter())
        for task, annotation in track.annotations.items():
            rows, digests[annotation.name] = rows_and_digest(storage, task, annotation.name)
            lengths[annotation.name] = rows
        if source == "crops":
            _count_crops(storage, track, max(lengths[a.name] for a in track.annotations.values()), tally, digests)
    for track in layout.tests:
        lengths[track.name] = _test_rows(storage, track, source, digests)
        if not lengths[track.name]:
            outcomes.setdefault(track.name, Counter())[f"test.no_{source}"] += 1
    _check_labels(layout, storage)
    units = []
    for split in (*SPLITS, TEST):
        whole = _pieces(layout, split, splits, lengths, by_track=source == "crops")
        pieces = _slices(_people_apart(whole))
        for ordinal, unit_pieces in enumerate(_pack(pieces)):
            content = [digests.get(name) for name in sorted(_files(unit_pieces))]
            key = json.dumps([source, dict(settings), [_as_dict(p) for p in unit_pieces], content])
            units.append(ShardPlan(shard_name(split, ordinal, key), split, unit_pieces))
    return Plan(tuple(units), {name: tally for name, tally in outcomes.items() if tally}, leaked, videos)


def _check_labels(layout: Layout, storage: Storage) -> None:
    """Refuse a split in which no annotation line of a task is valid, because it would be empty.

    Files are read until one has a valid line, which usually is the first file.
    """
    for split in SPLITS:
        for task in TASKS:
            tracks = [track for track in layout.tracks if task in track.annotations]
            names = [t.annotations[task].name for t in tracks if t.annotations[task].split == split]
            lines, problems = 0, list[str]()
            for name in names:
                labels = labels_of(storage, task, name)
                if not labels.bad.all():
                    break
                lines += len(labels.bad)
                problems += labels.problems
            else:
                if problems:
                    raise DatasetError(
                        f"the {split} split of {task} is empty, because each of its {lines} annotation lines was "
                        f"refused; the first: {problems[0]}"
                    )


def _video_signatures(layout: Layout, storage: Storage) -> dict[str, str]:
    """Return video file → signature, so that a video that is repaired later gives other parts, and other audio."""
    videos = {track.video for track in (*layout.tracks, *layout.tests) if track.video}
    found: dict[str, str] = {}
    for folder in sorted({video.rpartition("/")[0] for video in videos}):
        found |= {f"{folder}/{name}".lstrip("/"): signed for name, signed in storage.signatures(folder).items()}
    return {video: found.get(video, "") for video in sorted(videos)}


def _crop_files(storage: Storage, track: Track, digests: dict[str, str]) -> list[str]:
    """Return the names of the files in a track's crop folders, and record a hash of the names and signatures of its
    crops, so that a crop that is added or replaced later gives another part.
    """
    names: list[str] = []
    for folder in track.crops:
        signatures = storage.signatures(folder)
        crops = {name: signed for name, signed in signatures.items() if frame_of_crop(name) is not None}
        digests[folder] = hashlib.sha256(json.dumps(crops).encode()).hexdigest()
        names += signatures
    return names


def _count_crops(storage: Storage, track: Track, rows: int, tally: Counter[str], digests: dict[str, str]) -> None:
    """Count images without a row."""
    for name in _crop_files(storage, track, digests):
        frame = frame_of_crop(name)
        if is_hidden(name):
            tally["images.stray"] += 1
        elif frame is None:
            tally["images.no_frame_number"] += 1
        elif not 1 <= frame <= rows:
            tally["images.without_row"] += 1


def _test_rows(storage: Storage, track: Track, source: Source, digests: dict[str, str]) -> int:
    """Return the number of frames of a track without annotation: the video's, and at least up to its last crop.

    0 means that the track has nothing to pack.
    """
    last = 0
    if source == "crops":
        last = max((frame_of_crop(name) or 0 for name in _crop_files(storage, track, digests)), default=0)
        if not last:
            return 0
    if track.video is None:
        return last
    try:
        return max(last, probe(storage.path(track.video)).frames_expected)
    except INPUT_ERRORS:
        return last


def _pieces(
    layout: Layout, split: str, splits: Mapping[tuple[str, str], str], lengths: Mapping[str, int], *, by_track: bool
) -> Iterator[VideoSlice]:
    """Yield whole tracks, or whole base videos, of a split."""
    groups: dict[tuple[str, str], list[Track]] = {}
    people: dict[str, set[str]] = {}
    for track in () if by_track else (*layout.tracks, *layout.tests):
        people.setdefault(track.video_id, set()).add(track.person)
    for track in layout.tests if split == TEST else layout.tracks:
        chosen_tasks = [splits.get((track.name, task)) == split for task in track.annotations]
        if any(chosen_tasks) or (split == TEST and lengths[track.name]):
            groups.setdefault((track.video_id, track.person if by_track else ""), []).append(track)
    for (video_id, _), tracks in sorted(groups.items()):
        chosen = []
        for track in sorted(tracks, key=lambda track: track.person):
            names = [(t, track.annotations[t].name) for t in TASKS if splits.get((track.name, t)) == split]
            chosen.append(TrackSlice(track.name, track.person, tuple(names), track.crops))
        names_of = [name for track in chosen for _, name in track.annotations]
        rows = max(lengths[name] for name in names_of or [track.name for track in chosen])
        others = people.get(video_id, set()) - {track.person for track in chosen}
        yield VideoSlice(video_id, tuple(chosen), tracks[0].video, 0, rows, tuple(sorted(others)))


def _people_apart(pieces: Iterator[VideoSlice]) -> Iterator[VideoSlice]:
    """Yield the people of a video one by one if a part cannot hold all of them.

    The store is ordered by video, person, frame, so slices of several people would interrupt the tracks of each. Such a
    video is decoded once per person.
    """
    for piece in pieces:
        if piece.stop * len(piece.tracks) <= FILE_ROWS:
            yield piece
            continue
        people = {*piece.others, *(track.person for track in piece.tracks)}
        for track in piece.tracks:
            yield dataclasses.replace(piece, tracks=(track,), others=tuple(sorted(people - {track.person})))


def _slices(pieces: Iterator[VideoSlice]) -> Iterator[VideoSlice]:
    """Yield slices of at most FILE_ROWS rows."""
    for piece in pieces:
        step = FILE_ROWS // len(piece.tracks)
        for first in range(0, piece.stop, step):
            yield dataclasses.replace(piece, first=first, stop=min(first + step, piece.stop))


def _pack(pieces: Iterator[VideoSlice]) -> Iterator[tuple[VideoSlice, ...]]:
    """Yield groups of consecutive slices with at most FILE_ROWS rows in total."""
    group: list[VideoSlice] = []
    rows = 0
    for piece in pieces:
        more = (piece.stop - piece.first) * len(piece.tracks)
        if group and rows + more > FILE_ROWS:
            yield tuple(group)
            group, rows = [], 0
        group.append(piece)
        rows += more
    if group:
        yield tuple(group)


def _as_dict(piece: VideoSlice) -> dict[str, Any]:
    """Return the fields of a slice. Without other people they are those of earlier versions, as is a part's name."""
    fields = dataclasses.asdict(piece)
    return fields if piece.others else {name: value for name, value in fields.items() if name != "others"}


def _files(pieces: tuple[VideoSlice, ...]) -> set[str]:
    tracks = [track for piece in pieces for track in piece.tracks]
    return (
        {name for track in tracks for _, name in track.annotations}
        | {folder for track in tracks for folder in track.crops}
        | {piece.video for piece in pieces if piece.video}
    )
