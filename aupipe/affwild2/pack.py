"""Packing one unit of the plan into one part of the store, with the crops of the data set."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe import facs
from aupipe.affwild2.labels import Labels
from aupipe.affwild2.layout import frame_of_crop
from aupipe.affwild2.mtl import labels_of
from aupipe.affwild2.plan import ShardPlan, TrackSlice, VideoSlice
from aupipe.errors import MediaError
from aupipe.faces import CROP_SIZE_PX
from aupipe.facestore import jpeg
from aupipe.facestore.write import ShardWriter, audio_file, rows
from aupipe.media.audio import AudioBlock, audio
from aupipe.media.container import media_time_s
from aupipe.media.input_errors import INPUT_ERRORS, as_media_error
from aupipe.media.probe import VideoInfo, probe
from aupipe.storage import Storage

KEPT = "kept"
# Part of the mark of every audio file. Change it when the same video gives other audio.
AUDIO_METHOD = 2
_STEP_ROWS = 1024  # crops in memory at a time


@dataclass
class LabeledSlice:
    """The labeled rows of one person in a slice of a video, and the outcome of each frame.

    Attributes:
        au: (n, 12) int8, for rows piece.first … piece.stop − 1.
        expression: (n,) int8, for the same rows.
        images: row, 0-based within the slice → JPEG.
        outcome: (n,) KEPT, or the reason why there is no image ("": none is needed).
    """

    track: TrackSlice
    labels: dict[str, Labels]
    au: npt.NDArray[np.int8]
    expression: npt.NDArray[np.int8]
    images: dict[int, bytes]
    outcome: npt.NDArray[np.object_]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(n,) rows with a label of any task; all rows of a test track, which has no annotation."""
        if not self.track.annotations:
            return np.ones(len(self.outcome), bool)
        return (self.au[:, 0] != facs.UNKNOWN) | (self.expression != facs.UNKNOWN)


def labeled_slice(storage: Storage, piece: VideoSlice, track: TrackSlice) -> LabeledSlice:
    """Return the labels of a person in a slice of a video."""
    count = piece.stop - piece.first
    au = np.full((count, len(facs.AUS)), facs.UNKNOWN, np.int8)
    expression = np.full(count, facs.UNKNOWN, np.int8)
    labels = {task: _labels(storage.root, task, name) for task, name in track.annotations}
    for task, found in labels.items():
        values = found.values[piece.first : piece.stop]
        (au if task == "au" else expression)[: len(values)] = values
    return LabeledSlice(track, labels, au, expression, {}, np.full(count, "", object))


@functools.lru_cache(maxsize=4)
def _labels(root: str, task: str, name: str) -> Labels:
    return labels_of(Storage(root), task, name)


def pack_crops(unit: ShardPlan, *, root: str, source: str = "affwild2:crops") -> bytes:
    """Return the part of a unit from the crops of the data set. JPEG bytes are not changed."""
    storage = Storage(root)
    part = ShardWriter()
    for piece in unit.pieces:
        info = video_info(storage, piece.video)
        for track in piece.tracks:
            for first in range(piece.first, piece.stop, _STEP_ROWS):
                step = dataclasses.replace(piece, first=first, stop=min(first + _STEP_ROWS, piece.stop))
                person = labeled_slice(storage, step, track)
                _fetch(storage, step, person)
                add(part, step, person, frame_times(step, info), source)
                _compare_with_container(part, step, person, info)
    return part.finish()


def pack_audio(video_id: str, *, root: str, video: str) -> bytes:
    """Return the audio file of a base video, with its audio up to the first error, as in annotation.

    It is silent if the video cannot be opened (its parts contain the reason).
    """

    def readable() -> Iterator[AudioBlock]:
        with contextlib.suppress(*INPUT_ERRORS):
            yield from audio(Storage(root).path(video))

    return audio_file(video_id, readable())


def add(
    part: ShardWriter, piece: VideoSlice, person: LabeledSlice, times: npt.NDArray[np.float64] | None, source: str
) -> None:
    """Append a person's rows that have an image, and count the outcome of every annotation row of the slice."""
    kept = np.array(sorted(person.images), dtype=np.int64)
    part.add(
        rows(
            video_id=piece.video_id,
            person=person.track.person,
            frames=piece.first + kept + 1,
            images=[person.images[row] for row in kept],
            au=person.au[kept],
            expression=person.expression[kept],
            time_s=None if times is None else times[kept],
            source=source,
        )
    )
    if not person.labels:
        tally = {"test.rows": len(person.outcome)} | _outcomes("test", person.outcome)
        part.count_outcomes(person.track.name, tally)
    for task, labels in person.labels.items():
        span = slice(piece.first, piece.stop)
        bad, known = labels.bad[span], labels.known[span]
        outcome = person.outcome[: len(known)]
        tally = {f"{task}.rows": len(known), f"{task}.bad_line": int(bad.sum())}
        tally[f"{task}.unknown"] = int((~known & ~bad).sum())
        tally |= _outcomes(task, outcome[known])
        part.count_outcomes(person.track.name, tally, labels.problems if piece.first == 0 else ())


def _outcomes(task: str, outcome: npt.NDArray[np.object_]) -> dict[str, int]:
    """Return "TASK.OUTCOME" → number of rows."""
    reasons, counts = np.unique(outcome.astype(str), return_counts=True)
    return {f"{task}.{reason}": int(count) for reason, count in zip(reasons, counts, strict=True)}


def video_info(storage: Storage, video: str | None) -> VideoInfo | MediaError | None:
    """Return the properties of a video, the error if it cannot be read, or None if there is no video."""
    if video is None:
        return None
    try:
        return probe(storage.path(video))
    except INPUT_ERRORS as error:
        return as_media_error(error)


def frame_times(piece: VideoSlice, info: VideoInfo | MediaError | None) -> npt.NDArray[np.float64] | None:
    """Return the media time (n,) of the slice's frames from their packets; None without a readable video.

    Annotations sometimes continue beyond the last frame of the container. Such frames follow at its mean rate.
    """
    if not isinstance(info, VideoInfo) or info.pts is None or len(info.pts) < 2:
        return None
    known = np.array([media_time_s(int(pts), info.time_base) for pts in info.pts])
    step = (known[-1] - known[0]) / (len(known) - 1)
    beyond = known[-1] + step * np.arange(1, max(0, piece.stop - len(known)) + 1)
    return np.concatenate([known, beyond])[piece.first : piece.stop]


def _fetch(storage: Storage, piece: VideoSlice, person: LabeledSlice) -> None:
    """Read the crops of the labeled rows."""
    where: dict[int, str] = {}
    for folder in reversed(person.track.crops):  # reversed, so that the first pack has priority
        names = [(frame_of_crop(name), name) for name in storage.children(folder)[1]]
        # A JPEG has priority over a PNG of the same frame, because its bytes can be kept unchanged.
        ordered = sorted(names, key=lambda entry: not entry[1].lower().endswith(".png"))
        where |= {frame: f"{folder}/{name}" for frame, name in ordered if frame is not None}
    for row in np.flatnonzero(person.known).tolist():
        path = where.get(piece.first + row + 1)
        if path is None:
            person.outcome[row] = "no_crop"
            continue
        data = _as_jpeg(storage.read(path))
        size = jpeg.size(data)
        if size is None:
            person.outcome[row] = "no_jpeg"
        elif size != (CROP_SIZE_PX, CROP_SIZE_PX):
            person.outcome[row] = "wrong_size"
        elif (image := jpeg.decode(data)) is None or image.shape[:2] != (CROP_SIZE_PX, CROP_SIZE_PX):
            person.outcome[row] = "no_jpeg"  # the header is intact, and the picture damaged
        else:
            person.outcome[row] = KEPT
            person.images[row] = data


def _as_jpeg(data: bytes) -> bytes:
    """Convert a PNG crop to a JPEG of the store's quality; return other bytes unchanged."""
    if not data.startswith(b"\x89PNG"):
        return data
    image = jpeg.decode(data)
    return data if image is None else jpeg.encode(image)


def _compare_with_container(
    part: ShardWriter, piece: VideoSlice, person: LabeledSlice, info: VideoInfo | MediaError | None
) -> None:
    """Count, once per track, the difference in length between annotation and container."""
    if piece.first or info is None or not person.labels:
        return
    if isinstance(info, MediaError):
        part.count_outcomes(person.track.name, {f"video.{info.reason}": 1})
        return
    rows_of_track = max(len(labels.values) for labels in person.labels.values())
    difference = rows_of_track - info.frames_expected
    key = "video.rows_beyond_end" if difference > 0 else "video.frames_without_row"
    if difference:
        part.count_outcomes(person.track.name, {key: abs(difference)})
