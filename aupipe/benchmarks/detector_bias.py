"""Where the detector sees the five points of crops that we aligned: the constant `faces.template.SEEN_ON_ARCFACE`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from aupipe.annotation.inputs import find_inputs
from aupipe.errors import ConfigError
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig, crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.face_stream import detect_stream
from aupipe.faces.template import MIN_FACES, detected_points
from aupipe.media.frames import frames

_EVERY = 10  # neighboring frames tell the same


def measure(named: Sequence[str]) -> dict[str, Any]:
    """Median of the points over the crops of each video's largest face, then over videos: each person has one vote.

    Raises:
        ConfigError: no video has enough faces.
    """
    detector = Detector(DetectorConfig())
    videos = find_inputs(named)[0]
    seen = [detected_points(_crops(video.uri, detector), detector) for video in videos]
    medians = np.array([np.median(points, axis=0) for points in seen if len(points) >= MIN_FACES], np.float64)
    if not len(medians):
        raise ConfigError(f"{', '.join(named)}: no video with {MIN_FACES} faces in every {_EVERY}th frame")
    points = np.median(medians, axis=0)
    figures = {"seen_on_arcface": points, "bias_px": points - ARCFACE_TEMPLATE, "sd_of_videos_px": medians.std(axis=0)}
    return {"videos": len(medians)} | {name: value.round(2).tolist() for name, value in figures.items()}


def _crops(uri: str, detector: Detector) -> Iterator[np.ndarray]:
    for seen, points in detect_stream(frames(uri), detector, AlignmentConfig().smoothing_radius):
        if len(seen.faces) and seen.frame.image is not None and seen.frame.index % _EVERY == 0:
            face = int(np.argmax(seen.faces.boxes[:, 2] * seen.faces.boxes[:, 3]))
            yield crop(seen.frame.image, points[face], ARCFACE_TEMPLATE)
