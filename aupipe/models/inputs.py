"""From stored crops to what a network takes. Training and annotation both go through here, and nowhere else."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from aupipe.config import Section

Triple = tuple[float, float, float]


class InputSpec(Section):
    """Size and normalisation of a network's input, per RGB channel, for values in 0..1."""

    size_px: int = Field(default=112, ge=8, le=1024)
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)

    def scale(self, crops: Tensor) -> Tensor:
        """Crops (N, H, W, 3) uint8 as (N, 3, size, size) float32 in 0..1 (bilinear, antialiased)."""
        images = crops.permute(0, 3, 1, 2).float() / 255
        if images.shape[-2:] == (self.size_px, self.size_px):
            return images.contiguous()
        # Bilinear weights are convex: values stay in 0..1.
        size = (self.size_px, self.size_px)
        return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, size, size) in 0..1, shifted and scaled per channel."""
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        return (images - mean) / std

    def prepare(self, crops: Tensor) -> Tensor:
        """Crops (N, H, W, 3) uint8 as network input (N, 3, size, size) float32."""
        return self.normalise(self.scale(crops))
