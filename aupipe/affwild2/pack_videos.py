"""Packing one unit of the plan into one part of the store, with crops from the videos by our detector and aligner."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aupipe.affwild2.pack import KEPT, LabeledSlice, add, labeled_slice, video_info
from aupipe.affwild2.plan import ShardPlan, VideoSlice
from aupipe.errors import MediaError
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig, crop
from aupipe.faces.detect import Detections, Detector, DetectorConfig
from aupipe.faces.face_stream import detect_stream
from aupipe.faces.search import SearchConfig
from aupipe.facestore import jpeg
from aupipe.facestore.write import ShardWriter
from aupipe.media.frames import Frame, Span, frames
from aupipe.media.input_errors import INPUT_ERRORS, as_media_error
from aupipe.media.probe import VideoInfo
from aupipe.storage import Storage

SOURCE = "affwild2:videos"
# Part of the name of every shard. Change it when the same detections and settings give other crops.
METHOD = 2


def pack_videos(
    unit: ShardPlan, *, root: str, detector: DetectorConfig, alignment: AlignmentConfig, search: SearchConfig
) -> bytes:
    """Return the part of a unit with crops of the frames that have a label.

    Faces are searched as in annotation, so that a model sees the same crops of a frame in training and in use.
    """
    storage = Storage(root)
    cropper = _Cropper(Detector(detector), alignment.smoothing_radius, search.every)
    part = ShardWriter()
    for piece in unit.pieces:
        people = [labeled_slice(storage, piece, track) for track in piece.tracks]
        times = None
        info = video_info(storage, piece.video)
        if piece.video is None or not isinstance(info, VideoInfo):
            reason = info.reason if isinstance(info, MediaError) else "no_video"
            for person in people:
                person.outcome[person.known] = reason
        else:
            times = cropper.cut(storage.path(piece.video), info, piece, people)
        for person in people:
            add(part, piece, person, times, SOURCE)
    return part.finish()


def pick(faces: Detections, people: tuple[str, ...], boundary_px: float) -> dict[str, int]:
    """Return person → index of their face; a person may have none.

    A single person has the largest face. `left` and `right` are the left and right of the two largest faces in the
    image. In a video with annotations for VIDEO and VIDEO_right, VIDEO is the left one. A single face belongs to the
    person on its side of `boundary_px`.
    """
    if not len(faces):
        return {}
    largest = np.argsort(-faces.boxes[:, 2] * faces.boxes[:, 3], kind="stable")
    if people == ("",):
        return {"": int(largest[0])}
    centers = faces.boxes[:, 0] + faces.boxes[:, 2] / 2
    if len(faces) == 1:
        sides = {"left" if centers[0] < boundary_px else "right": 0}
    else:
        left, right = sorted(largest[:2].tolist(), key=lambda face: centers[face])
        sides = {"left": left, "right": right}
    if "" in people:
        sides[""] = sides.get("left" if "left" not in people else "right", -1)
    return {person: face for person, face in sides.items() if person in people and face >= 0}


@dataclass(frozen=True)
class _Cropper:
    """Detection and cropping of the labeled faces of a slice."""

    detector: Detector
    radius: int
    search_every: int

    def cut(
        self, uri: str, info: VideoInfo, piece: VideoSlice, people: Sequence[LabeledSlice]
    ) -> npt.NDArray[np.float64]:
        """Set images and outcomes of the slice from its part of the video; return the times (n,) of its frames."""
        known = np.any([person.known for person in people], axis=0)
        for person in people:
            person.outcome[person.known] = "no_frame"
        times = np.full(len(known), np.nan)
        needed = _with_cells(np.flatnonzero(known) + piece.first, self.radius, self.search_every)
        names = (*(person.track.person for person in people), *piece.others)
        middle = info.width_px / 2
        start = needed[0] if len(needed) else piece.first
        stretch = _only(_stretch(uri, info, int(start), piece.stop + self.radius), {*needed.tolist()})
        try:
            for seen, points in detect_stream(stretch, self.detector, self.radius, search_every=self.search_every):
                row = seen.frame.index - piece.first
                if not 0 <= row < len(known):
                    continue
                times[row] = np.nan if seen.frame.time_s is None else seen.frame.time_s
                if seen.frame.image is None:
                    continue
                faces = pick(seen.faces, names, middle)
                for person in people:
                    if not person.known[row]:
                        continue
                    face = faces.get(person.track.person)
                    if face is None:
                        person.outcome[row] = "no_face"
                    elif self.detector.config.is_too_small(seen.faces.boxes[face]):
                        person.outcome[row] = "face_too_small"
                    else:
                        person.images[row] = jpeg.encode(crop(seen.frame.image, points[face], ARCFACE_TEMPLATE))
                        person.outcome[row] = KEPT
        except INPUT_ERRORS as error:  # earlier frames are kept
            for person in people:
                person.outcome[person.outcome == "no_frame"] = as_media_error(error).reason
        return times


def _stretch(uri: str, info: VideoInfo, first: int, stop: int) -> Iterator[Frame]:
    """Yield frames `first` … `stop` − 1 of a video, as far as they exist."""
    first, stop = max(0, first), min(stop, info.frames_expected - info.missing)
    if first < stop:
        yield from (frame for frame in frames(uri, Span.part(info, first, stop)) if first <= frame.index < stop)


def _with_cells(labeled: npt.NDArray[np.int64], radius: int, every: int) -> npt.NDArray[np.int64]:
    """Return the frames, ascending, on which the crops of labeled frames (n,) depend.

    Smoothing needs the frames up to `radius` away, and the faces of a frame need those before it in its cell of the
    search (`FaceSearch`).
    """
    near = np.unique(labeled[:, None] + np.arange(-radius, radius + 1))
    near = near[near >= 0]
    before = near[:, None] - np.arange(every)
    return np.unique(before[before // every == near[:, None] // every])


def _only(stretch: Iterator[Frame], needed: Collection[int]) -> Iterator[Frame]:
    """Yield the frames, without image if they are not needed, so that nothing is detected there."""
    for frame in stretch:
        yield frame if frame.index in needed else dataclasses.replace(frame, image=None)
