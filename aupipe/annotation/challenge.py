"""The challenge's tracks in an annotation: the faces of VIDEO, VIDEO_left and VIDEO_right."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe import facs
from aupipe.affwild2.layout import split_person
from aupipe.affwild2.pack_videos import pick
from aupipe.affwild2.submission import TrackPredictions
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.ledger_entries import Entry, read_all
from aupipe.annotation.schema import BOX
from aupipe.annotation.summary import duplicates
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import DatasetError
from aupipe.faces.detect import Detections
from aupipe.storage import Storage


def frame_counts(annotation: str, whole: bool) -> dict[str, int]:
    """Return video → number of annotated frames. A video has its file's name without folder and suffix.

    Args:
        whole: the numbers must be those of all frames.

    Raises:
        DatasetError: there is no annotation, two videos have the same name, or `whole` is not met.
    """
    videos = _videos(annotation)
    part = next((video for video, _ in videos.values() if whole and video.source_hash != video.fingerprint), None)
    if part is not None:
        raise DatasetError(
            f"{annotation}: only a part of the frames of {part.video_id} is annotated, so the length of its track is "
            "unknown; fix: annotate without --sample-fps, start_s and end_s, or give --sample"
        )
    return {name: video.frames_expected or 0 for name, (video, _) in videos.items()}


def track_predictions(annotation: str, tracks: Collection[str]) -> dict[str, TrackPredictions]:
    """Return track → decisions, as in `people_predictions`.

    Raises:
        DatasetError: as `frame_counts`.
    """
    videos, storage = _videos(annotation), Storage(annotation)
    names: dict[str, list[str]] = {}
    for track in tracks:
        names.setdefault(track if track in videos else split_person(track)[0], []).append(track)
    found: dict[str, TrackPredictions] = {}
    for name, own in names.items():
        record, entry = videos[name]
        rows = read_all(storage, entry.frames)
        rows = rows.filter(pc.equal(rows["video_id"], record.video_id))
        person_of = {track: "" if track == name else split_person(track)[1] for track in own}
        people = people_predictions(rows, tuple(person_of.values()))
        found |= {track: people[person] for track, person in person_of.items()}
    return found


def _videos(annotation: str) -> dict[str, tuple[VideoRecord, Entry]]:
    """Return the annotated videos by name, in order; of a duplicate, the video that has its rows.

    A video whose rows were withdrawn, because its file became unreadable, is none of them.
    """
    storage = Storage(annotation)
    found = {video_id: each for video_id, each in Ledger.read(storage).current().items() if each[0].has_rows}
    for twin in duplicates(storage):
        first = found.get(twin.duplicate_of or "")
        if first and first[0].fingerprint == twin.fingerprint:  # A run that was killed may have other bytes of it.
            found.setdefault(twin.video_id, first)
    videos: dict[str, tuple[VideoRecord, Entry]] = {}
    for video_id, (record, entry) in sorted(found.items()):
        if videos.setdefault(PurePosixPath(video_id).stem, (record, entry))[0] is not record:
            raise DatasetError(
                f"{annotation}: {videos[PurePosixPath(video_id).stem][0].video_id} and {video_id} have the same name; "
                "fix: annotate the test videos into a folder of their own"
            )
    if not videos:
        raise DatasetError(f"{annotation} contains no annotation; fix: annotate.py TEST_VIDEOS --out {annotation}")
    return videos


def people_predictions(frames: pa.Table, people: tuple[str, ...]) -> dict[str, TrackPredictions]:
    """Return person → decisions, as 0 and 1, of the frames in which the person has a face.

    Faces are assigned frame by frame, as in packing (see `pick`): the largest face, or the left and the right one of
    the two largest.

    Args:
        frames: rows of one video of the frames table.
        people: "", left or right.
    """
    rows = frames.filter(frames[facs.AUS[0]].is_valid()).sort_by([("frame", "ascending"), ("face_id", "ascending")])
    number = rows["frame"].to_numpy().astype(np.int64)
    boxes = np.stack([rows[name].to_numpy() for name in BOX], axis=1)
    decided = np.stack([rows[au].to_numpy(zero_copy_only=False) for au in facs.AUS], axis=1).astype(np.float64)
    middle_px = rows["frame_width"].to_numpy() / 2
    chosen: dict[str, list[int]] = {person: [] for person in people}
    edges = [*np.flatnonzero(np.diff(number, prepend=-1)).tolist(), len(rows)]
    for start, stop in itertools.pairwise(edges):
        count = stop - start
        faces = Detections(boxes[start:stop], np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32))
        for person, face in pick(faces, people, float(middle_px[start])).items():
            chosen[person].append(start + face)
    return {person: TrackPredictions(number[index] + 1, decided[index]) for person, index in chosen.items()}
