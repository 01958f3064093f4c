"""Frame-to-frame crop jitter, without and with smoothing of the landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aupipe.annotation.input_search import find_inputs
from aupipe.errors import ConfigError
from aupipe.faces.align import ARCFACE_TEMPLATE, AlignmentConfig, similarity
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.faces.face_stream import FrameFaces, detect_stream
from aupipe.faces.search import SearchConfig
from aupipe.media.frames import frames

# Points of the crop whose positions in the image are compared. Corners are included because rotation moves them most.
_PROBES = np.array([[0, 0, 1], [111, 0, 1], [0, 111, 1], [111, 111, 1], [55.5, 55.5, 1]], np.float64)


def measure(inputs: Sequence[str], every: int = SearchConfig().every) -> dict[str, Any]:
    """Return the jitter in crop pixels, without smoothing (radius 0) and with the default radius.

    The median is taken over the frames of each video, and then over videos. Jitter is the second difference of the
    positions of crop points in the image, in units of the crop's pixels, so that uniform motion of the head has none.

    Args:
        every: `SearchConfig.every`.

    Raises:
        ConfigError: no video has the same face in three neighboring frames.
    """
    radius = AlignmentConfig().smoothing_radius
    by_video = {}
    for video in find_inputs(inputs)[0]:
        jitter = {r: _jitter(video.uri, r, every) for r in (0, radius)}
        if jitter[0]:
            by_video[video.video_id] = {f"radius_{r}": round(float(np.median(v)), 3) for r, v in jitter.items()}
    if not by_video:
        raise ConfigError(f"{', '.join(inputs)}: no face in three neighboring frames")
    raw, smoothed = (float(np.median([v[f"radius_{r}"] for v in by_video.values()])) for r in (0, radius))
    return {
        "radius": radius, "every": every, "jitter_raw_px": round(raw, 3), "jitter_smoothed_px": round(smoothed, 3),
        "videos": len(by_video), "by_video": by_video,
    }  # fmt: skip


def _jitter(uri: str, radius: int, every: int) -> list[float]:
    """Return one value for each frame whose first face is the same as in the previous and the next frame."""
    values: list[float] = []
    last: list[tuple[FrameFaces, np.ndarray]] = []
    for found, points in detect_stream(frames(uri), Detector(DetectorConfig()), radius, search_every=every):
        last = [*last[-2:], (found, points)]
        if len(last) < 3 or not all(len(s.faces) for s, _ in last) or any(s.links[0] != 0 for s, _ in last[1:]):
            continue
        positions = [_positions(p[0]) for _, p in last]
        scale = float(np.hypot(*similarity(last[1][1][0], ARCFACE_TEMPLATE)[:, 0]))
        values.append(float(np.abs(positions[0] - 2 * positions[1] + positions[2]).mean()) * scale)
    return values


def _positions(points: np.ndarray) -> np.ndarray:
    """Return the (5, 2) positions of the probe points in the image."""
    matrix = np.vstack([similarity(points, ARCFACE_TEMPLATE), [0, 0, 1]])
    return (_PROBES @ np.linalg.inv(matrix).T)[:, :2]
