"""Training of the networks of `models.geometry` on rendered faces and on poses that are not rendered.

The network starts as one that reads AUs. From distorted pictures it learns the points, by the likelihood of a normal
distribution per point, and the AUs. The layers behind the points learn the AUs from poses with the errors that the
network makes on held-out rendered people, and from the points that it finds in the pictures of the others. Some AUs
also get a distance between points.

A model without points starts and learns likewise, because points improve the features, and keeps what reads AUs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from aupipe import facs
from aupipe.arrays import AnyFloats as Floats
from aupipe.errors import ConfigError
from aupipe.faces import CROP_SIZE_PX
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.checkpoint import Card
from aupipe.models.configs import ExpressionTransferConfig, GeometryConfig
from aupipe.models.geometry import FaceNetwork, GeometryEncoder, ShapeExpert
from aupipe.models.interfaces import FrameEncoder, System
from aupipe.synthesis import face_points
from aupipe.synthesis.crop_training import train
from aupipe.synthesis.rendered_crops import CLOSE, MARGIN_PX, SIZE_PX, WIDE, Crops, View, part, target
from aupipe.synthesis.rig import EYE_X_DM
from aupipe.synthesis.shape_poses import ShapePoses

_EXPERT_BATCH, _EXPERT_RATE = 256, 2e-3
_SHARE, _LESS_SHARE = 0.4, 0.2  # of the points in the logits; chosen with the figures in the card of the starter models
_LESS_OF_POINTS = ("AU01", "AU02", "AU04", "AU06")
_OWN = ("AU04",)  # On real faces, networks that read a closer square take resting faces with low brows for it.
# Shares that belong to the distances. On real faces the layers behind the points read the brows worse than distances,
# and the picture takes full lips of dark skin for parted ones.
_WITH_DISTANCES = {"AU01": 0.0, "AU02": 0.0, "AU04": 0.0, "AU25": 0.8}  # that of AU04 is replaced by the next ones
# Shares for a network that has seen low brows: its points follow brows down to the eyes, so that frowns are read from
# them better than from the picture. Raised cheeks of real faces are read from the picture alone, pressed lips mostly.
_OF_REAL_FACES = {"AU04": 0.4, "AU06": 0.0, "AU24": 0.2}
# AU → the points whose mean height is added, and those whose mean height is subtracted, as the starts of their names.
_DISTANCES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "AU01": (("brow",), ()),
    "AU02": (("brow_0", "brow_1", "brow_top_0", "brow_top_1"), ()),
    "AU07": (("eye_4", "eye_5", "lid_low_mid"), ("eye_1", "eye_2", "lid_up_mid")),
    "AU10": (("lip_3",), ("nostril_2",)),
    "AU25": (("inner_lip_2",), ("inner_lip_3",)),
}
_AU_WEIGHT = 2.0  # of the loss of the AUs beside that of the points
_FIRST_LOG_DEVIATION = 1.2
_DM_PER_PX = 2 * EYE_X_DM / float(ARCFACE_TEMPLATE[1, 0] - ARCFACE_TEMPLATE[0, 0])


def train_network(
    network: FaceNetwork,
    crops: Crops,
    view: View,
    *,
    steps: int,
    seed: int,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Train the network that finds points and reads AUs on these crops."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network.typical.copy_(torch.from_numpy(_to_network(crops.points.mean(axis=0), view)))
        network.out.weight.normal_(0, 0.005, generator=generator)
        network.out.bias.zero_().view(-1, 3)[:, 2] = _FIRST_LOG_DEVIATION
    intensity = target(crops.intensity)

    def losses(images: Tensor, placed: Tensor, chosen: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        points, log_deviation, logits = network(images)
        of_aus = functional.binary_cross_entropy_with_logits(logits, intensity[chosen])
        return {"of points": _of_points(points, log_deviation, placed), "of AUs": _AU_WEIGHT * of_aus}

    train(network, crops, view, losses, steps=steps, seed=seed, generator=generator, report=report)


def train_points(
    network: FaceNetwork,
    crops: Crops,
    view: View,
    *,
    steps: int,
    seed: int,
    others: Sequence[FrameEncoder] = (),
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Train the points of a trained network further on these crops, and keep the AUs that it reads.

    Points are the better the longer they are trained, also on real faces. AUs that are trained as long on rendered
    faces are worse on real ones, so the network learns the logits that it had, not labels.

    Args:
        others: networks (B, 3, H, W) → logits (B, 12) that read the mirror image of `CLOSE`. The network learns the
            mean of all logits, and its own alone for the AUs of `_OWN`.
    """
    before = copy.deepcopy(network).eval().to(memory_format=torch.channels_last)
    is_own = torch.tensor([au in _OWN for au in facs.AUS])
    for other in others:
        other.eval().to(memory_format=torch.channels_last)

    def losses(images: Tensor, placed: Tensor, _: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        points, log_deviation, logits = network(images)
        with torch.no_grad():
            _, _, kept = before(images)
            closer = part(images, view, CLOSE).flip(-1) if others else images
            learned = torch.stack([kept, *(other(closer) for other in others)]).mean(dim=0)
        of_aus = (logits - torch.where(is_own, kept, learned)).square().mean()
        return {"of points": _of_points(points, log_deviation, placed), "of AUs": _AU_WEIGHT * of_aus}

    train(network, crops, view, losses, steps=steps, seed=seed, report=report)


def _of_points(points: Tensor, log_deviation: Tensor, placed: Tensor) -> Tensor:
    """Return the mean negative log likelihood, up to a constant, of places under normal distributions."""
    squared = (points - placed).square().sum(dim=-1)
    return (squared / (2 * (2 * log_deviation).exp()) + 2 * log_deviation).mean()


def find_points(network: FaceNetwork, crops: Crops, view: View) -> Floats:
    """Return the points (N, P, 2) that the network finds, in pixels of the crops without the margin."""
    inner = slice(MARGIN_PX, MARGIN_PX + CROP_SIZE_PX)
    found = []
    with torch.no_grad():
        for images in np.array_split(crops.images[:, inner, inner], math.ceil(len(crops.images) / 64)):
            found.append(network(view.inputs.prepare(torch.from_numpy(images)))[0].numpy())
    left, top, side = view.box_px
    return (np.concatenate(found) + 0.5) * (side / SIZE_PX) - 0.5 + np.array([left, top])


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
    targets = target(np.concatenate([poses.intensity, seen[1]]))
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


def add_distances(encoder: GeometryEncoder, poses: ShapePoses) -> None:
    """Add to the logits of some AUs a distance between points, and set the share of the points for some of them.

    A logit rises by 1 for each standard deviation of the distance among these poses, above its mean over the people at
    rest. The layers learn to tell movements apart by details of the heads that real faces do not share; a distance
    cannot. Figures are in the card of the starter models.
    """
    expert = encoder.expert
    expert.distances.zero_()
    for au, (up, down) in _DISTANCES.items():
        row = expert.distances[facs.AUS.index(au)].view(-1)
        for names, sign in ((up, -1.0), (down, 1.0)):  # y points down
            at = [place for place, name in enumerate(face_points.NAMES) if names and name.startswith(names)]
            row[[2 * place + 1 for place in at]] += sign / max(len(at), 1)
    with torch.no_grad():
        found = expert.features(torch.from_numpy(poses.points).float()) @ expert.distances.T
        scale = torch.where(expert.distances.any(dim=1), found.std(dim=0), 1.0)
        expert.distances.div_(scale[:, None])
        at_rest = expert.features(torch.from_numpy(poses.at_rest[..., :2]).float()) @ expert.distances.T
    expert.distances_at_rest.copy_(at_rest.mean(dim=0))
    for au, share in _WITH_DISTANCES.items():
        encoder.share[facs.AUS.index(au)] = share


def set_shares(encoder: GeometryEncoder) -> None:
    """Set the share of the points for AUs whose share was chosen on real faces; figures are in the card."""
    for au, share in _OF_REAL_FACES.items():
        encoder.share[facs.AUS.index(au)] = share


def _to_network(points: Floats, view: View) -> Floats:
    """Return points of the crop in pixels of the network's input."""
    left, top, side = view.box_px
    return (points - np.array([left, top]) + 0.5) * (SIZE_PX / side) - 0.5


def untrained(path: str, view: View = WIDE) -> tuple[System, Card]:
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
    system = build(config, view.inputs)
    assert isinstance(system.encoder, GeometryEncoder)
    network, given = system.encoder.backbone, other.encoder.state_dict()
    network.network.load_state_dict(other.encoder.get_submodule("backbone.network").state_dict())
    with torch.no_grad():
        network.au.weight.zero_()[:, : network.pooled_width] = given["au.0.weight"]
        network.au.bias.copy_(given["au.0.bias"])
    system.encoder.share.copy_(torch.tensor([_LESS_SHARE if au in _LESS_OF_POINTS else _SHARE for au in facs.AUS]))
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    return system, Card(model=config, input=view.real_inputs, template=template, training=card.training)


def read_pooled_features_alone(network: FaceNetwork) -> None:
    """Let the AUs of an untrained network depend on the pooled features alone, also after it is trained."""
    used = torch.arange(network.au.in_features) < network.pooled_width
    network.au.weight.register_hook(lambda gradient: gradient * used)


def without_points(network: FaceNetwork, card: Card) -> tuple[System, Card]:
    """Return the model of the recipe starter that reads AUs as a network does whose AUs need the pooled features alone.

    Args:
        card: of the network.
    """
    assert isinstance(card.model, GeometryConfig)
    config = ExpressionTransferConfig(
        outputs=("au",), backbone=card.model.backbone, hidden=(), dropout=0.0, mirrored=False
    )
    system = build(config, card.input)
    system.encoder.get_submodule("backbone.network").load_state_dict(network.network.state_dict())
    system.encoder.get_submodule("au.0").load_state_dict(
        {"weight": network.au.weight[:, : network.pooled_width], "bias": network.au.bias}
    )
    return system, card.model_copy(update={"model": config})
