"""Search around known faces against a search of every whole frame: recall, landmarks and cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from aupipe.annotation.input_search import find_inputs
from aupipe.errors import ConfigError
from aupipe.faces.detect import Detections, Detector, DetectorConfig, iou
from aupipe.faces.search import FaceSearch
from aupipe.faces.shot_boundaries import is_cut, thumbnail
from aupipe.media.frames import frames

_SAME = 0.4  # IoU of two detections of one face


def measure(inputs: Sequence[str], every: int) -> dict[str, Any]:
    """Return figures for a value of `search.every` over all frames of all videos.

    `recall` is the share of the faces in a search of every whole frame that are found, `added` the number of other
    faces in the same unit. `landmarks` is the median distance of the points in units of the distance of the eyes.
    `cpu` is the CPU time in units of that of whole frames.

    Raises:
        ConfigError: no video has a face.
    """
    detector = Detector(DetectorConfig())
    cpu_s = [0.0, 0.0]
    whole = found = same = 0
    distances = [np.zeros(0)]
    videos = find_inputs(inputs)[0]
    for video in videos:
        searches = FaceSearch(detector, 1), FaceSearch(detector, every)
        before = None
        for frame in frames(video.uri):
            now = None if frame.image is None else thumbnail(frame.image)
            cut = frame.restart or (before is not None and now is not None and is_cut(before, now))
            before = now
            faces = []
            for number, search in enumerate(searches):
                start = time.thread_time()
                faces.append(search.faces(frame, cut))
                cpu_s[number] += time.thread_time() - start
            distances.append(_distances(*faces))
            whole, found, same = whole + len(faces[0]), found + len(faces[1]), same + len(distances[-1])
    if not same:
        raise ConfigError(f"{', '.join(inputs)}: no video with a face")
    return {
        "videos": len(videos), "faces": whole, "every": every,
        "recall": round(same / whole, 4), "added": round((found - same) / whole, 4),
        "landmarks": round(float(np.median(np.concatenate(distances))), 4),
        "cpu": round(cpu_s[1] / cpu_s[0], 3),
    }  # fmt: skip


def _distances(expected: Detections, found: Detections) -> np.ndarray:
    """Return (n,) the mean distance of the points of the faces that both have, in distances of the eyes."""
    if not len(expected) or not len(found):
        return np.zeros(0)
    overlaps = iou(expected.boxes, found.boxes)
    both = overlaps.max(axis=1) >= _SAME
    points = expected.landmarks[both]
    eyes = np.maximum(np.linalg.norm(points[:, 0] - points[:, 1], axis=1), 1)
    return np.linalg.norm(points - found.landmarks[overlaps.argmax(axis=1)[both]], axis=2).mean(axis=1) / eyes
