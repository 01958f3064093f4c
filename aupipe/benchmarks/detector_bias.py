"""The detector's five points on aligned crops: the constant `faces.template.YUNET_POINTS_ON_ARCFACE`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from aupipe.annotation.input_search import find_inputs
from aupipe.errors import ConfigError
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig, crop
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.face_stream import detect_stream
from aupipe.faces.template import MIN_FACES, detected_points
from aupipe.media.frames import frames

_EVERY = 10  # only each tenth frame is used, because neighboring frames give nearly the same points


def measure(inputs: Sequence[str]) -> dict[str, Any]:
    """Return the median of the points over the crops of each video's largest face, then over videos.

    The second median gives each video the same weight, independent of its length.

    Raises:
        ConfigError: no video has enough faces.
    """
    detector = Detector(DetectorConfig())
    videos = find_inputs(inputs)[0]
    detected = [detected_points(_crops(video.uri, detector), detector) for video in videos]
    medians = np.array([np.median(points, axis=0) for points in detected if len(points) >= MIN_FACES], np.float64)
    if not len(medians):
        raise ConfigError(f"{', '.join(inputs)}: no video with {MIN_FACES} faces in every {_EVERY}th frame")
    points = np.median(medians, axis=0)
    figures = {"seen_on_arcface": points, "bias_px": points - ARCFACE_TEMPLATE, "sd_of_videos_px": medians.std(axis=0)}
    return {"videos": len(medians)} | {name: value.round(2).tolist() for name, value in figures.items()}


def _crops(uri: str, detector: Detector) -> Iterator[np.ndarray]:
    """Yield the aligned crop of the largest face of each tenth frame."""
    for found, points in detect_stream(frames(uri), detector, AlignmentConfig().smoothing_radius):
        if len(found.faces) and found.frame.image is not None and found.frame.index % _EVERY == 0:
            face = int(np.argmax(found.faces.boxes[:, 2] * found.faces.boxes[:, 3]))
            yield crop(found.frame.image, points[face], ARCFACE_TEMPLATE)
