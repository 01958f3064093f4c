"""Extraction: detect and align the faces of a decoded segment.

The rows of a frame depend on the ±R frames around it, on the frames within the longest gap before it, and on the frames
before these in the same cell of the face search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from aupipe.annotation.schema import FEATURES, POSE, list_column
from aupipe.annotation.segments import Segment
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.face_stream import FrameFaces, detect_stream
from aupipe.faces.pose import head_pose
from aupipe.faces.sharpness import sharpness
from aupipe.faces.track import TrackingConfig
from aupipe.media.container import media_time_s
from aupipe.media.frames import Frame
from aupipe.media.probe import VideoInfo

PART_CROPS = 256  # crops in one part, which bounds the memory of a worker


@dataclass(frozen=True)
class CropBatch:
    """A part of a segment: consecutive rows with their crops.

    Attributes:
        rows: FEATURES without embeddings.
        crops: (M, T, 112, 112, 3) uint8 RGB, one per template for each row with status ok, in order.
        number: 0-based within the segment.
        last: the segment ends with this part.
    """

    rows: pa.Table
    crops: np.ndarray
    number: int
    last: bool


def extract(
    segment: Segment,
    images: Iterable[Frame],
    detector: Detector,
    smoothing_radius: int,
    templates: np.ndarray,
    tracking: TrackingConfig,
    search_every: int = 1,
) -> Iterator[CropBatch]:
    """Yield the rows and crops of the frames that the segment writes, in parts of bounded size.

    No part is empty, except the only part of a segment without frames.

    Args:
        images: the frames of the segment's span.
        templates: (T, 5, 2); each face is cropped once per template.
        search_every: `SearchConfig.every`.

    Raises:
        MediaError: the video cannot be opened.
    """
    rows: list[dict[str, object]] = []
    crops: list[np.ndarray] = []
    number = 0
    for frame_faces, points in detect_stream(images, detector, smoothing_radius, tracking, search_every):
        index = frame_faces.frame.index
        if index < segment.write_start or (segment.write_stop is not None and index >= segment.write_stop):
            continue
        # A full part is yielded when the next frame arrives; otherwise a segment whose last frame fills a part would
        # end with an empty part.
        if len(crops) * len(templates) >= PART_CROPS or len(rows) >= 8 * PART_CROPS:
            yield _part(rows, crops, len(templates), number, last=False)
            rows, crops, number = [], [], number + 1
        for row, crop_points in _rows(frame_faces, points, detector.config):
            rows.append(row)
            if crop_points is not None and frame_faces.frame.image is not None:
                crops.append(np.stack([crop(frame_faces.frame.image, crop_points, template) for template in templates]))
                row["sharpness"] = sharpness(crops[-1][0])
    yield _part(rows, crops, len(templates), number, last=True)


def lost_rows(segment: Segment, info: VideoInfo) -> pa.Table:
    """Return the rows of a segment of which no frame is decoded: FEATURES without embeddings, status decode_error.

    Args:
        info: of the video, for the times of the frames that its container holds.
    """
    assert info.pts is not None  # A video without times is one segment, which is not lost by itself.
    times = [media_time_s(int(pts), info.time_base) for pts in info.pts]
    frames = segment.written_frames
    rows = [
        {"frame": index, "time_s": times[index] if index < len(times) else None, "status": "decode_error", "cut": False,
         "corrupt": False, "restart": False}
        for index in frames
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema([field for field in FEATURES if field.name != "embedding"]))


def with_embeddings(rows: pa.Table, embeddings: np.ndarray) -> pa.Table:
    """Return `rows` with the embeddings (M, E) float32 of the rows with status ok."""
    has_crop = np.array([status == "ok" for status in rows["status"].to_pylist()], bool)
    return rows.append_column(FEATURES.field("embedding"), list_column(embeddings, has_crop))


def _rows(
    frame_faces: FrameFaces, points: np.ndarray, config: DetectorConfig
) -> Iterator[tuple[dict[str, object], np.ndarray | None]]:
    """Yield the rows of a frame, each with the landmarks for its crop, or None if it has no crop."""
    frame, faces = frame_faces.frame, frame_faces.faces
    height, width = (None, None) if frame.image is None else frame.image.shape[:2]
    base = {
        "frame": frame.index, "time_s": frame.time_s, "cut": frame_faces.cut, "corrupt": frame.corrupt,
        "restart": frame.restart, "frame_width": width, "frame_height": height,
    }  # fmt: skip
    if len(faces) == 0:
        yield base | {"status": "decode_error" if frame.image is None else "no_face"}, None
    for face in range(len(faces)):
        x, y, width, height = faces.boxes[face].tolist()
        too_small = config.is_too_small(faces.boxes[face])
        yield base | {
            "status": "face_too_small" if too_small else "ok",
            "detector_score": float(faces.scores[face]),
            "box_x": x, "box_y": y, "box_w": width, "box_h": height,
            "landmarks": faces.landmarks[face].reshape(-1).tolist(),
            **dict(zip(POSE, head_pose(points[face]) or (), strict=False)),
            "link": int(frame_faces.links[face]) if frame_faces.links[face] >= 0 else None,
            "resumes": [number for place in frame_faces.resumes[face] for number in place] or None,
        }, None if too_small else points[face]  # fmt: skip


def _part(rows: list[dict[str, object]], crops: list[np.ndarray], templates: int, number: int, last: bool) -> CropBatch:
    schema = pa.schema([field for field in FEATURES if field.name != "embedding"])
    stacked = np.stack(crops) if crops else np.zeros((0, templates, CROP_SIZE_PX, CROP_SIZE_PX, 3), np.uint8)
    return CropBatch(pa.Table.from_pylist(rows, schema=schema), stacked, number, last)
