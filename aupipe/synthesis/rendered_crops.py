"""Crops of rendered faces with exact points and intensities, and their distortion into input for a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from aupipe.arrays import AnyFloats as Floats
from aupipe.data.augment import AugmentConfig, distort
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import ARCFACE_TEMPLATE, crop, similarity
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.models.inputs import InputSpec
from aupipe.synthesis import face_points
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.stills import stills

SIZE_PX = 80  # of a picture for the network
MARGIN_PX = 8  # around a crop, so that a shifted crop contains no border
_PICTURE_PX, _PICTURES = 160, 5  # size, and pictures of one person
DISTORTIONS = AugmentConfig(
    filter=0.6, gamma=0.3, gain=0.15, contrast=0.2, saturation=0.4, hue_turns=0.04, gray=0.15, shade=0.4,
    low_resolution=0.25, noise=0.06, erase=0.25,
)  # fmt: skip
# Standard deviations of the alignment: rotation (degrees), logarithm of the scale, shift (pixels of the crop). They are
# twice as large in `_FAR` of the pictures.
_ROTATION_DEG, _LOG_SCALE, _SHIFT_PX, _FAR = 3.0, 0.035, 1.5, 0.3
_TARGET = 1.3  # The target of an AU is this times its intensity, at most 1.


@dataclass(frozen=True)
class View:
    """The square of the crop (left, top, side) that a network sees.

    Attributes:
        box_px: of rendered faces.
        real_box_px: of the finished model, because brows are lower in aligned crops of real faces.
    """

    box_px: tuple[int, int, int]
    real_box_px: tuple[int, int, int]

    @property
    def inputs(self) -> InputSpec:
        """The input of a network in training."""
        return InputSpec(box_px=self.box_px, size_px=SIZE_PX, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    @property
    def real_inputs(self) -> InputSpec:
        """The input of the finished model."""
        return self.inputs.model_copy(update={"box_px": self.real_box_px})


WIDE, CLOSE = View((10, 20, 92), (12, 24, 88)), View((16, 28, 80), (17, 30, 78))


@dataclass(frozen=True)
class Crops:
    """N rendered faces.

    Attributes:
        images: (N, 128, 128, 3), the aligned crop with a margin.
        points: (N, P, 2) in pixels of the crop without the margin.
        intensity: (N, 12).
        person: (N,).
    """

    images: npt.NDArray[np.uint8]
    points: Floats
    intensity: Floats
    person: npt.NDArray[np.int64]

    def where(self, chosen: npt.NDArray[np.bool_]) -> Crops:
        return Crops(self.images[chosen], self.points[chosen], self.intensity[chosen], self.person[chosen])


def render_crops(rigs: Sequence[Rig], *, people: int, seed: int) -> Crops:
    """Return the faces that the detector finds in pictures of that many people."""
    detector = Detector(DetectorConfig())
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
    for number in range(people):
        drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        rendered = stills(rigs[number % len(rigs)], seed=drawn, count=_PICTURES, size_px=_PICTURE_PX)
        rng = np.random.default_rng([drawn, _PICTURES])
        for picture, points, intensity in zip(rendered.pictures, rendered.points, rendered.intensity, strict=True):
            _, file = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 98))])
            image = np.ascontiguousarray(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))[:, :, ::-1])
            faces = detector.detect(image)
            if len(faces):
                matrix = similarity(faces.landmarks[0], ARCFACE_TEMPLATE)
                wide = crop(image, faces.landmarks[0], ARCFACE_TEMPLATE + MARGIN_PX, CROP_SIZE_PX + 2 * MARGIN_PX)
                found.append((wide, points @ matrix[:, :2].T + matrix[:, 2], intensity, number))
    images, points, intensity, person = (np.array(column) for column in zip(*found, strict=True))
    return Crops(images, points.astype(np.float32), intensity, person)


def target(intensity: Floats) -> Tensor:
    """Return what a network learns as the probabilities (N, 12) of faces with these intensities."""
    return torch.from_numpy(intensity * _TARGET).float().clamp(max=1)


def distorted(
    crops: Crops,
    chosen: npt.NDArray[np.int64],
    view: View,
    rng: np.random.Generator,
    generator: torch.Generator,
    distortions: AugmentConfig = DISTORTIONS,
) -> tuple[Tensor, Tensor]:
    """Return the network's input (B, 3, H, W) of the chosen crops, moved and distorted, and its points (B, P, 2)."""
    moved = [_moved(crops.images[number], crops.points[number], view, rng) for number in chosen]
    images = torch.from_numpy(np.stack([image for image, _ in moved])).permute(0, 3, 1, 2).float() / 255
    images = distort(images[:, None], distortions, generator)[:, 0]
    images = view.inputs.normalize(images).contiguous(memory_format=torch.channels_last)
    return images, torch.from_numpy(np.stack([placed for _, placed in moved]))


def part(images: Tensor, view: View, inner: View) -> Tensor:
    """Return the input (B, 3, H, W) of a network with another view, of the same distorted pictures.

    Args:
        images: the input (B, 3, H, W) of a network with this view.
        inner: a square inside that of `view`.
    """
    (left, top, side), (inner_left, inner_top, inner_side) = view.box_px, inner.box_px
    scale = inner_side / side
    middle = [(low + inner_side / 2 - start) / (side / 2) - 1 for low, start in ((inner_left, left), (inner_top, top))]
    transform = torch.tensor([[scale, 0, middle[0]], [0, scale, middle[1]]]).expand(len(images), 2, 3)
    grid = functional.affine_grid(transform, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _moved(
    image: npt.NDArray[np.uint8], points: Floats, view: View, rng: np.random.Generator
) -> tuple[np.ndarray, Floats]:
    """Return the network's picture of a randomly moved, turned and mirrored crop, and its points, float32."""
    size, (left, top, side) = SIZE_PX, view.box_px
    wide = 2.0 if rng.random() < _FAR else 1.0
    angle = np.deg2rad(np.clip(rng.normal(0, _ROTATION_DEG * wide), -15, 15))
    scale = size / side * math.exp(rng.normal(0, _LOG_SCALE * wide))
    middle = np.array([left + side / 2 - 0.5, top + side / 2 - 0.5]) + rng.normal(0, _SHIFT_PX * wide, 2)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = (size - 1) / 2 - linear @ middle
    matrix = np.column_stack([linear, offset - linear @ np.full(2, MARGIN_PX)])
    picture = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    placed = points @ linear.T + offset
    if rng.random() < 0.5:
        picture, placed = picture[:, ::-1], placed[face_points.partners()] * [-1, 1] + [size - 1, 0]
    return picture, placed.astype(np.float32)
