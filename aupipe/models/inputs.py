"""Conversion of stored crops to network input, the only one for training and annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from aupipe.config import Section
from aupipe.faces import CROP_SIZE_PX

if TYPE_CHECKING:
    from torch import Tensor

Triple = tuple[float, float, float]


class InputSpec(Section):
    """Network input from a crop: region, size and normalization (per RGB channel, values in 0..1).

    Attributes:
        box_px: left, top and side of the square that is used; None: the whole crop.
        mirrored: whether the network sees the mirror image of the square.
    """

    # Left, top and side of the square of the crop that is used; None: the whole crop.
    box_px: tuple[int, int, int] | None = None
    mirrored: bool = False  # The network sees the mirror image of the square.
    size_px: int = Field(default=112, ge=8, le=1024)  # Width and height to which the square is scaled.
    mean: Triple = (0.5, 0.5, 0.5)  # Mean per RGB channel, for values in 0..1.
    std: Triple = (0.5, 0.5, 0.5)  # Standard deviation per RGB channel.

    @field_validator("std")
    @classmethod
    def _is_positive(cls, std: Triple) -> Triple:
        if min(std) <= 0:
            raise ValueError("positive numbers are needed")
        return std

    @field_validator("box_px")
    @classmethod
    def _lies_within(cls, box: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if box is not None and not (min(box[:2]) >= 0 and box[2] >= 8 and max(box[:2]) + box[2] <= CROP_SIZE_PX):
            raise ValueError(f"left, top and side of a square within {CROP_SIZE_PX} pixels are needed")
        return box

    def scale(self, crops: Tensor) -> Tensor:
        """Resize crops (N, H, W, 3) uint8 to (N, 3, size, size) float32 in 0..1 (bilinear, antialiased)."""
        if self.box_px is not None:
            left, top, side = self.box_px
            crops = crops[:, top : top + side, left : left + side]
        if self.mirrored:
            crops = crops.flip(2)
        images = crops.permute(0, 3, 1, 2)
        if images.shape[-2:] == (self.size_px, self.size_px):
            # Bytes are reordered, because copies of floats take as long as decoding.
            return images.contiguous().float().div_(255)
        images = images.float() / 255
        from torch.nn import functional  # takes seconds, and a card is also read without torch

        # Bilinear weights are convex, so values stay in 0..1.
        size = (self.size_px, self.size_px)
        return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)

    def normalize(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation, in place, for images (N, 3, size, size) in 0..1."""
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        return images.sub_(mean).div_(std)  # in place, because new memory costs more than the subtraction

    def prepare(self, crops: Tensor) -> Tensor:
        """Convert crops (N, H, W, 3) uint8 to network input (N, 3, size, size) float32."""
        return self.normalize(self.scale(crops))


def scaling(side: int, size_px: int) -> Tensor:
    """Return the matrix (size_px, side) that scales the rows of an image as `InputSpec.scale` does."""
    import torch  # takes seconds, and a card is also read without torch
    from torch.nn import functional

    identity = torch.eye(side)
    if side == size_px:
        return identity
    size = (size_px, side)
    scaled = functional.interpolate(
        identity[None, None], size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return scaled[0, 0]
