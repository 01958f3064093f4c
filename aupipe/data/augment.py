"""Augmentation of whole batches on the model's device, from one seeded generator. All frames of a clip share one draw.

Kinds and amounts follow the published code of Tallec et al. (ABAW3, 2022) and Jin et al. (ABAW2, 2021). Further kinds
bridge the gap from rendered to real faces. A horizontal flip keeps labels valid, because none of the twelve AUs is
one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from aupipe.config import Section

_FILTER_PX = (1, 3, 5)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class AugmentConfig(Section):
    """Kinds of augmentation and their amounts. Zero or false switches a kind off."""

    flip: bool = False  # Mirror half of the crops.
    brightness: float = Field(default=0, ge=0, le=1)  # added, uniform in ±
    gain: float = Field(default=0, ge=0, le=1)  # factor 1 ±
    contrast: float = Field(default=0, ge=0, le=1)  # factor 1 ± about the image's mean
    saturation: float = Field(default=0, ge=0, le=1)  # factor 1 ± about the pixel's gray
    hue_turns: float = Field(default=0, ge=0, le=0.5)  # rotation about the gray axis, uniform in ±, 1 = 360°
    channel_drop: float = Field(default=0, ge=0, le=1)  # probability that one color channel is set to 0
    gamma: float = Field(default=0, ge=0, le=2)  # exponent e^±
    gray: float = Field(default=0, ge=0, le=1)  # probability of no color at all
    shade: float = Field(default=0, ge=0, le=1)  # light that falls off across the image: factor 1 ± at opposite edges
    low_resolution: float = Field(default=0, ge=0, le=1)  # probability of a face reduced to 0.25 … 0.9 of its size
    noise: float = Field(default=0, ge=0, le=1)  # maximum standard deviation of the noise
    filter: float = Field(default=0, ge=0, le=1)  # probability of a random filter, mixed with the image itself
    erase: float = Field(default=0, ge=0, le=1)  # probability of a rectangle of one color, sides 0.07 … 0.4
    rotation_turns: float = Field(default=0, ge=0, le=0.5)  # uniform in ±, 1 = 360°
    zoom: float = Field(default=0, ge=0, lt=1)  # scale 1 ±
    shift: float = Field(default=0, ge=0, lt=1)  # of the image's size, uniform in ±, each axis
    smallest_crop: float = Field(default=1, gt=0, le=1)  # random crop of this much … 1 of the area, aspect 3:4 … 4:3
    mixup_alpha: float = Field(default=0, ge=0)  # Beta(alpha, alpha)
    label_smoothing: float = Field(default=0, ge=0, lt=1)  # y ← (1 − s) y + s / 2

    @property
    def softens_targets(self) -> bool:
        """True if targets may be between 0 and 1."""
        return bool(self.mixup_alpha or self.label_smoothing)


def augment(images: Tensor, targets: Tensor, config: AugmentConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return augmented images (B, S, 3, H, W) in 0..1 and their targets (B, S, …); −1 stays unknown.

    Args:
        generator: on the CPU, so that one seed gives the same draws on any device.
    """
    images = distort(images, config, generator)
    if config.mixup_alpha:
        images, targets = _mixup(images, targets, config.mixup_alpha, generator)
    return images, smooth(targets, config)


def distort(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return images (B, S, 3, H, W) in 0..1 after all augmentations that act on one clip alone, i.e. without mixup."""
    draw = _Draw(len(images), images.shape[1], images.device, generator)
    flat = _color(_warp(images.flatten(0, 1), config, draw), config, draw)
    flat = _spoil(flat, config, draw)
    return flat.unflatten(0, images.shape[:2])


def smooth(targets: Tensor, config: AugmentConfig) -> Tensor:
    """Return targets (B, S, …) with label smoothing; −1 stays unknown."""
    if not config.label_smoothing:
        return targets
    return torch.where(targets >= 0, (1 - config.label_smoothing) * targets + config.label_smoothing / 2, targets)


class _Draw:
    """Random numbers, one per clip, repeated for each of its frames: (B·S,) on the images' device."""

    def __init__(self, clips: int, frames: int, device: torch.device, generator: Generator) -> None:
        self._clips, self._frames, self._device, self._generator = clips, frames, device, generator

    def between(self, low: float, high: float) -> Tensor:
        return self._spread(low + (high - low) * torch.rand(self._clips, generator=self._generator))

    def around_zero(self, amount: float) -> Tensor:
        return self.between(-amount, amount)

    def below(self, end: int) -> Tensor:
        return self._spread(torch.randint(end, (self._clips,), generator=self._generator))

    def kernel(self, size: int) -> Tensor:
        """Return random filters (B·S, 3, 3, size, size) that keep the variance of an image on average."""
        shape = (self._clips, 3, 3, size, size)
        return self._spread(torch.randn(shape, generator=self._generator) / (3 * size * size) ** 0.5)

    def one_of(self, values: Sequence[int]) -> int:
        """Return one of the values, the same for the whole batch."""
        return values[int(torch.randint(len(values), (), generator=self._generator))]

    def grain(self, images: Tensor) -> Tensor:
        """Return normal noise with the shape of `images`, equal in all frames of a clip."""
        return self._spread(torch.randn((self._clips, *images.shape[1:]), generator=self._generator))

    def _spread(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self._frames, dim=0).to(self._device, non_blocking=True)


def _warp(images: Tensor, config: AugmentConfig, draw: _Draw) -> Tensor:
    """Apply flip, rotation, zoom, crop and shift as one affine warp; pixels outside repeat the border."""
    if not (config.flip or config.rotation_turns or config.zoom or config.shift or config.smallest_crop < 1):
        return images
    angle = draw.around_zero(config.rotation_turns * 2 * math.pi)
    wide = high = 1 + draw.around_zero(config.zoom)
    mirror = torch.ones_like(angle)
    if config.flip:
        mirror[draw.around_zero(1) < 0] = -1
    x, y = (2 * draw.around_zero(config.shift) for _ in range(2))
    if config.smallest_crop < 1:
        area, ratio = draw.between(config.smallest_crop, 1), torch.exp(draw.around_zero(math.log(4 / 3)))
        crop_wide, crop_high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        x, y = x + (1 - crop_wide) * draw.around_zero(1), y + (1 - crop_high) * draw.around_zero(1)
        wide, high = wide * crop_wide, high * crop_high
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [[mirror * wide * cos, -high * sin, x], [mirror * wide * sin, high * cos, y]]
    matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _color(images: Tensor, config: AugmentConfig, draw: _Draw) -> Tensor:
    if config.gain:
        images = images * _each(1 + draw.around_zero(config.gain))
    if config.contrast:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = mean + (images - mean) * _each(1 + draw.around_zero(config.contrast))
    if config.saturation:
        gray = _gray(images)
        images = gray + (images - gray) * _each(1 + draw.around_zero(config.saturation))
    if config.hue_turns:
        images = _turned(images, draw.around_zero(config.hue_turns * 2 * math.pi))
    if config.brightness:
        images = images + _each(draw.around_zero(config.brightness))
    if config.gain or config.contrast or config.saturation or config.hue_turns or config.brightness:
        images = images.clamp(0, 1)
    if config.gamma:
        images = images.clamp(min=1e-4) ** _each(torch.exp(draw.around_zero(config.gamma)))
    if config.gray:
        images = torch.where(_each(draw.between(0, 1) < config.gray), _gray(images), images)
    if config.shade:
        amount, turn = draw.between(0, config.shade), draw.around_zero(math.pi)
        y, x = (torch.linspace(-1, 1, size, device=images.device) for size in images.shape[-2:])
        across = _each(torch.cos(turn)) * x + _each(torch.sin(turn)) * y[:, None]
        images = (images * (1 + _each(amount) * across)).clamp(0, 1)
    if config.channel_drop:
        dropped = draw.between(0, 1) < config.channel_drop
        keep = ~(functional.one_hot(draw.below(3), 3).bool() & dropped[:, None])
        images = images * keep[..., None, None]
    return images


def _spoil(images: Tensor, config: AugmentConfig, draw: _Draw) -> Tensor:
    """Apply camera defects and occlusion: random filter, low resolution, noise, erased rectangle."""
    size = images.shape[-1]
    if config.filter:
        images = torch.where(_each(draw.between(0, 1) < config.filter), _filtered(images, draw), images)
    if config.low_resolution:
        smaller, chosen = draw.between(0.25, 0.9), draw.between(0, 1) < config.low_resolution
        images = images.clone()
        for number in chosen.nonzero()[:, 0].tolist():
            reduced = functional.interpolate(
                images[number, None], size=round(size * float(smaller[number])), mode="area"
            )
            images[number] = functional.interpolate(reduced, size=size, mode="bilinear", align_corners=False)[0]
    if config.noise:
        images = (images + draw.grain(images) * _each(draw.between(0, config.noise))).clamp(0, 1)
    if config.erase:
        wide, high = draw.between(0.07, 0.4), draw.between(0.07, 0.4)
        left, top = draw.between(0, 1) * (1 - wide), draw.between(0, 1) * (1 - high)
        color = torch.stack([draw.between(0, 1) for _ in range(3)], 1)[..., None, None]
        place = (torch.arange(size, device=images.device) + 0.5) / size
        across = (place >= left[:, None]) & (place < (left + wide)[:, None])
        down = (place >= top[:, None]) & (place < (top + high)[:, None])
        erased = (draw.between(0, 1) < config.erase)[:, None, None] & across[:, None, :] & down[:, :, None]
        images = torch.where(erased[:, None], color, images)
    return images


def _filtered(images: Tensor, draw: _Draw) -> Tensor:
    """Mix images (N, 3, H, W) with a random convolution of themselves: other textures and colors on the same shapes.

    Xu et al.: Robust and Generalizable Visual Representation Learning via Random Convolutions (ICLR 2021). Unlike the
    paper, each channel keeps its mean and standard deviation.
    """
    count, channels = images.shape[:2]
    size = draw.one_of(_FILTER_PX)
    padded = functional.pad(images, (size // 2,) * 4, mode="replicate")
    padded = padded.reshape(1, count * channels, *padded.shape[2:])
    filtered = functional.conv2d(padded, draw.kernel(size).flatten(0, 1), groups=count).reshape(images.shape)
    spread, mean = torch.std_mean(images, dim=(2, 3), keepdim=True)
    its_spread, its_mean = torch.std_mean(filtered, dim=(2, 3), keepdim=True)
    filtered = (filtered - its_mean) / (its_spread + 1e-4) * spread + mean
    return torch.lerp(filtered, images, _each(draw.between(0, 1))).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    """Return the luma (N, 1, H, W)."""
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)


def _turned(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate colors about the gray axis (1, 1, 1) by `angle` (N,) in radians (Rodrigues' formula)."""
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None] / math.sqrt(3)
    eye = torch.eye(3, device=images.device)
    cross = eye.roll(1, 0) - eye.roll(-1, 0)
    matrix = cos * eye + (1 - cos) / 3 + sin * cross
    return torch.einsum("nij,njhw->nihw", matrix, images)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _mixup(images: Tensor, targets: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix each clip with a random partner; a target (B, S, 12) is known if both targets are."""
    # NumPy draws the shares, because torch's Beta takes no generator and the global one belongs to another thread.
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    share = torch.from_numpy(random.beta(alpha, alpha, len(images)).astype(np.float32)).to(images.device)
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    known = (targets >= 0) & (targets[partner] >= 0)
    part = share[:, None, None]
    mixed = part * targets + (1 - part) * targets[partner]
    part = part[..., None, None]
    return part * images + (1 - part) * images[partner], torch.where(known, mixed, -torch.ones_like(mixed))
