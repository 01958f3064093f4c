"""Augmentation of whole batches on the model's device, from one seeded generator.

Kinds and amounts follow the published code of Tallec et al. (ABAW3, 2022); a horizontal flip is safe for labels
because no AU of the twelve has a side.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from aupipe.config import Section


class AugmentConfig(Section):
    """Zero or false leaves that kind out."""

    flip: bool = False
    brightness: float = Field(default=0, ge=0, le=1)  # added, uniform in ±
    contrast: float = Field(default=0, ge=0, le=1)  # factor 1 ± about the image's mean
    channel_drop: float = Field(default=0, ge=0, le=1)  # probability that one colour channel is set to 0
    rotation_turns: float = Field(default=0, ge=0, le=0.5)  # uniform in ±, 1 = 360°
    zoom: float = Field(default=0, ge=0, lt=1)  # scale 1 ±
    shift: float = Field(default=0, ge=0, lt=1)  # of the image's size, uniform in ±, each axis
    mixup_alpha: float = Field(default=0, ge=0)  # Beta(alpha, alpha)
    label_smoothing: float = Field(default=0, ge=0, lt=1)  # y ← (1 − s) y + s / 2


def augment(images: Tensor, targets: Tensor, config: AugmentConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Changed images (B, 3, H, W) in 0..1 and targets (B, 12) in 0..1 or −1.

    `generator` lives on the CPU: the same seed gives the same draws on any device.
    """
    images = _warp(images, config, generator)
    images = _colour(images, config, generator)
    if config.mixup_alpha:
        images, targets = _mixup(images, targets, config.mixup_alpha, generator)
    if config.label_smoothing:
        smooth = (1 - config.label_smoothing) * targets + config.label_smoothing / 2
        targets = torch.where(targets >= 0, smooth, targets)
    return images, targets


def _uniform(images: Tensor, amount: float, generator: Generator) -> Tensor:
    """(B,) in ±amount, on the images' device."""
    return ((torch.rand(len(images), generator=generator) * 2 - 1) * amount).to(images.device)


def _warp(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Flip, rotation, zoom and shift as one affine warp; pixels from outside repeat the border."""
    if not (config.flip or config.rotation_turns or config.zoom or config.shift):
        return images
    angle = _uniform(images, config.rotation_turns * 2 * math.pi, generator)
    scale = 1 + _uniform(images, config.zoom, generator)
    mirror = torch.ones_like(angle)
    if config.flip:
        mirror[_uniform(images, 1, generator) < 0] = -1
    x, y = (2 * _uniform(images, config.shift, generator) for _ in range(2))
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    matrix = torch.stack([torch.stack([mirror * cos, -sin, x], -1), torch.stack([mirror * sin, cos, y], -1)], -2)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _colour(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    if config.contrast:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = mean + (images - mean) * (1 + _uniform(images, config.contrast, generator))[:, None, None, None]
    if config.brightness:
        images = images + _uniform(images, config.brightness, generator)[:, None, None, None]
    if config.contrast or config.brightness:
        images = images.clamp(0, 1)
    if config.channel_drop:
        dropped = torch.rand(len(images), generator=generator) < config.channel_drop
        channel = torch.randint(3, (len(images),), generator=generator)
        keep = ~(functional.one_hot(channel, 3).bool() & dropped[:, None])
        images = images * keep[..., None, None].to(images.device)
    return images


def _mixup(images: Tensor, targets: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each image mixed with a random partner; a target is known where both are."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):  # torch's Beta takes no generator
        torch.manual_seed(seed)
        share = torch.distributions.Beta(alpha, alpha).sample((len(images),)).to(images.device)
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    known = (targets >= 0) & (targets[partner] >= 0)
    mixed = share[:, None] * targets + (1 - share[:, None]) * targets[partner]
    w = share[:, None, None, None]
    return w * images + (1 - w) * images[partner], torch.where(known, mixed, -torch.ones_like(mixed))
