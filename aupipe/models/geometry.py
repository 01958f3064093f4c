"""Geometry and appearance: AUs from the shape that the points of a face form, and from the picture itself.

One network finds dense points and reads AUs from the same features. Points can be learned from rendered faces alone,
with an uncertainty for each, because labels of rendered faces are exact (Wood et al.: 3D Face Reconstruction with Dense
Landmarks, 2022, arXiv 2204.02776). Layers that see only the points read the AUs too; they are trained on poses of the
heads that are not rendered (`aupipe.synthesis.train_geometry`). The logits are weighted means of both. To some of them
a distance between points is added, which FACS names, such as the height of the brows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aupipe.models.configs import GeometryConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import N_AUS, FrameEncoder, LogitsHead, System

_LOCAL = (16, 64)  # channels that are left of the two finer maps, from which positions are read
_SPREAD = 0.1  # A unit of the network is this share of the picture, so that its outputs are near 1.
_LEAST_LOG, _MOST_LOG = -3.0, 4.0  # of the logarithm of an uncertainty in pixels


class FaceNetwork(nn.Module):
    """Frames (B, 3, H, W) → points (B, P, 2), x and y in pixels, log standard deviations (B, P), and logits (B, 12)."""

    typical: Tensor

    def __init__(self, *, backbone: str, size_px: int, points: int) -> None:
        import timm  # takes seconds, so it is imported only when needed

        super().__init__()
        self.size_px, self.points = size_px, points
        self.network = timm.create_model(backbone, pretrained=False, features_only=True, out_indices=(-3, -2, -1))
        *fine, self.pooled_width = self.network.feature_info.channels()
        sides = [-(-size_px // reduction) for reduction in self.network.feature_info.reduction()[:-1]]
        self.local = nn.ModuleList(
            nn.Sequential(nn.Conv2d(full, kept, 1), nn.BatchNorm2d(kept), nn.ReLU(), nn.Flatten())
            for full, kept in zip(fine, _LOCAL, strict=True)
        )
        width = self.pooled_width + sum(kept * side * side for kept, side in zip(_LOCAL, sides, strict=True))
        self.out, self.au = nn.Linear(width, 3 * points), nn.Linear(width, N_AUS)
        self.register_buffer("typical", torch.zeros(points, 2))  # mean position of each point

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offsets, log_deviation, logits = self.offsets(frames)
        return self.typical + offsets, log_deviation, logits

    def offsets(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same with the offsets (B, P, 2) of the points from the typical ones, in pixels."""
        *fine, coarse = self.network(frames)
        local = [layers(each) for layers, each in zip(self.local, fine, strict=True)]
        features = torch.cat([coarse.mean(dim=(-2, -1)), *local], dim=1)
        out = self.out(features).unflatten(1, (self.points, 3))
        return out[..., :2] * (_SPREAD * self.size_px), out[..., 2].clamp(_LEAST_LOG, _MOST_LOG), self.au(features)


class Frontal(nn.Module):
    """Points (B, P, 2) → offsets (B, P, 2) of the face turned to the front from the mean shape, and the pose (B, 3).

    A camera without perspective is fitted to the rigid points alone, those of the eyes' corners and of the nose, so
    that a moving mouth or brow moves nothing else. The depth of all points is that of the mean shape. All steps are in
    closed form, so that they are part of an exported graph.
    """

    shape: Tensor
    camera: Tensor
    center: Tensor

    def __init__(self, points: int) -> None:
        super().__init__()
        self.register_buffer("shape", torch.zeros(points, 3))  # relative to the mean of the rigid points, y down
        self.register_buffer("camera", torch.zeros(points, 3))  # pseudoinverse of the rigid points of the shape
        self.register_buffer("center", torch.zeros(points, 1))  # weights of the mean of the rigid points

    def set_shape(self, shape: Tensor, rigid: Tensor) -> None:
        """Set the mean shape (P, 3) and which points are rigid (P,) bool."""
        self.center.copy_((rigid / rigid.sum())[:, None])
        self.shape.copy_(shape - (self.center * shape).sum(dim=0))
        at = self.shape * rigid[:, None]
        self.camera.copy_(at @ torch.linalg.inv(at.T @ at))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        points = points - (self.center * points).sum(dim=1, keepdim=True)
        rows = points.transpose(1, 2) @ self.camera  # (B, 2, 3): the first two rows of the rotation, scaled
        right, down = rows[:, 0], rows[:, 1]
        a, b, c = (right * right).sum(-1), (right * down).sum(-1), (down * down).sum(-1)
        # The nearest rotation divides by the square root of the rows' products, a 2×2 matrix (Cayley–Hamilton).
        area = (a * c - b * b).clamp(min=1e-12).sqrt()
        trace = (a + c + 2 * area).sqrt()
        scale = trace / 2
        share = (trace / ((a + area) * (c + area) - b * b))[:, None]
        a, b, c, area = a[:, None], b[:, None], c[:, None], area[:, None]
        first = share * ((c + area) * right - b * down)
        second = share * ((a + area) * down - b * right)
        third = torch.linalg.cross(first, second)
        depth = third @ self.shape.T
        placed = torch.cat([points / scale[:, None, None], depth[..., None]], dim=-1)
        turned = placed @ torch.stack([first, second, third], dim=1)
        pose = torch.stack([third[:, 0], third[:, 1], first[:, 1]], dim=-1)
        return turned[..., :2] - self.shape[:, :2], pose


class ShapeExpert(nn.Module):
    """Points (B, P, 2) → logits (B, 12): the mean over the face and its mirror image."""

    mirror: Tensor
    mean: Tensor
    spread: Tensor
    distances: Tensor
    distances_at_rest: Tensor

    def __init__(self, *, points: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.frontal = Frontal(points)
        width = 2 * points + 3
        self.register_buffer("mirror", torch.eye(points))  # a permutation: the partner of each point
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("distances", torch.zeros(N_AUS, width))  # a distance for each AU, in its logits
        self.register_buffer("distances_at_rest", torch.zeros(N_AUS))
        layers: list[nn.Module] = []
        for inner, outer in zip((width, *hidden), hidden, strict=False):
            layers += [nn.Linear(inner, outer), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear((width, *hidden)[-1], N_AUS))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        for name in ("distances", "distances_at_rest"):  # Models of earlier versions have none.
            state_dict.setdefault(prefix + name, torch.zeros_like(self.get_buffer(name)))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def mirrored(self, points: Tensor) -> Tensor:
        """Return the points of the mirror image, up to a shift, which has no effect here."""
        return self.mirror @ points * points.new_tensor([-1.0, 1.0])

    def features(self, points: Tensor) -> Tensor:
        """Return the input (B, 2 P + 3) of the layers: the frontal shape and the pose."""
        offsets, pose = self.frontal(points)
        return torch.cat([offsets.flatten(1), pose], dim=1)

    def above_rest(self, points: Tensor) -> Tensor:
        """Return (B, 12) by how much the distance of each AU is above that of faces at rest; 0 for AUs without one."""
        return self.features(points) @ self.distances.T - self.distances_at_rest

    def read(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers((features - self.mean) / self.spread)
        return logits

    def forward(self, points: Tensor) -> Tensor:
        return (self.read(self.features(points)) + self.read(self.features(self.mirrored(points)))) / 2


class GeometryEncoder(FrameEncoder):
    """Frames (B, 3, H, H) → logits (B, 12)."""

    share: Tensor

    def __init__(self, config: GeometryConfig, inputs: InputSpec) -> None:
        super().__init__()
        self.embed_dim = N_AUS
        self.backbone = FaceNetwork(backbone=config.backbone, size_px=inputs.size_px, points=config.points)
        self.expert = ShapeExpert(points=config.points, hidden=config.hidden, dropout=config.dropout)
        self.register_buffer("share", torch.full((N_AUS,), 0.5))  # of the points in the logit of each AU

    def forward(self, frames: Tensor) -> Tensor:
        offsets, _, logits = self.backbone.offsets(frames)
        typical = self.backbone.typical
        with torch.autocast(frames.device.type, enabled=False):  # 16 bits do not hold a shape
            # A shift has no effect on the shape. Near 0, points are rounded less.
            points = (typical - typical.mean(dim=0)) + offsets.float()
            return torch.lerp(logits.float(), self.expert(points), self.share) + self.expert.above_rest(points)


def build(config: GeometryConfig, inputs: InputSpec) -> System:
    """Return the system with random weights for inputs of that size."""
    return System(encoder=GeometryEncoder(config, inputs), head=LogitsHead(config.sizes))
