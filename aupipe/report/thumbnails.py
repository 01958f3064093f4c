"""Aligned pictures of a face at the apexes of its strongest events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.faces.align import ARCFACE_TEMPLATE, crop
from aupipe.media.frames import frames_at
from aupipe.media.probe import probe

MAX_FACES = 8  # faces per video with pictures
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """The apex of an event: its crop of 112×112 pixels as JPEG."""

    au: str
    frame: int
    time_s: float | None
    peak: float
    jpeg: bytes


def strongest(
    uri: str, track: int | None, faces: Mapping[int, pa.Table], events: Mapping[int, pa.Table]
) -> dict[int, list[Picture]]:
    """Return the pictures of each face, one per AU: the apex of its event with the highest peak.

    Args:
        uri, track: the video and its track.
        faces: rows of the frames table by face_id, the most important face first; those after `MAX_FACES` have none.
        events: rows of the events table by face_id.

    Raises:
        MediaError: the video cannot be read any more.
        OSError: the video is not there any more.
    """
    wanted: dict[int, list[tuple[int, dict, np.ndarray]]] = defaultdict(list)
    for face, rows in list(faces.items())[:MAX_FACES]:
        best: dict[str, dict] = {}
        for event in events[face].to_pylist():
            if event["au"] not in best or event["peak"] > best[event["au"]]["peak"]:
                best[event["au"]] = event
        for event in best.values():
            row = rows.filter(pc.equal(rows["frame"], event["apex_frame"]))
            if len(row) and row["landmarks"][0].as_py() is not None:
                points = np.asarray(row["landmarks"][0].as_py(), np.float32).reshape(5, 2)
                wanted[event["apex_frame"]].append((face, event, points))
    found: dict[int, list[Picture]] = defaultdict(list)
    if not wanted:
        return found
    info = probe(uri, track=track)
    for index, image in frames_at(uri, info, wanted):
        if image is None:
            continue
        for face, event, points in wanted[index]:
            small = crop(image, points, ARCFACE_TEMPLATE)[:, :, ::-1]
            jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
            found[face].append(Picture(event["au"], index, event["apex_s"], event["peak"], jpeg))
    return {face: sorted(pictures, key=lambda p: p.au) for face, pictures in found.items()}
