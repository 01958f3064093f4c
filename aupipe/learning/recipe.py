"""Recipes: a model, its input and a list of training stages, read from `aupipe/recipes/NAME.yaml` or a file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from aupipe.config import Resources, Section, load, merge
from aupipe.errors import ConfigError
from aupipe.learning.augment import AugmentConfig
from aupipe.learning.losses import LossConfig
from aupipe.learning.optim import OptimiserConfig
from aupipe.models.build import ModelConfig
from aupipe.models.inputs import InputSpec


class DataConfig(Section):
    """Which rows a stage learns from."""

    every_n: int = Field(default=1, ge=1)  # every n-th frame
    held_out: float = Field(default=0.1, ge=0, le=0.5)  # share of the videos kept for thresholds and smoothing
    window_groups: int = Field(default=32, ge=1)  # row groups of about 256 rows that are shuffled into each other


class Stage(Section):
    """One training run. What is learnt are the parameters that `optimiser.groups` name; the rest is frozen."""

    init: str = Field(
        min_length=1
    )  # random | timm (network!) | FILE of backbone weights | folder of a RUN or checkpoint
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)  # over all workers


class Recipe(Section):
    name: str
    seed: int = Field(default=0, ge=0)
    model: ModelConfig
    input: InputSpec
    stages: dict[str, Stage] = Field(
        min_length=1
    )  # in order; each goes on with the weights of the one before if it says so
    resources: Resources = Resources()


def known() -> list[str]:
    """Names of the recipes that come with aupipe."""
    folder = resources.files("aupipe") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def read(name_or_file: str, *, quick: bool, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name or file, with its `quick:` section laid over it if asked for, then the overrides.

    Raises:
        ConfigError: no such recipe, no quick section, or a setting that cannot be.
    """
    data = _yaml(name_or_file)
    light = data.pop("quick", None)
    if quick:
        if not isinstance(light, dict):
            raise ConfigError(f"recipe {name_or_file} has no quick: section; leave out --quick")
        data = merge(data, light)
    return load(Recipe, data, overrides)


def _yaml(name_or_file: str) -> dict[str, Any]:
    if name_or_file in known():
        text = (resources.files("aupipe") / "recipes" / f"{name_or_file}.yaml").read_text()
    elif Path(name_or_file).is_file():
        text = Path(name_or_file).read_text()
    else:
        raise ConfigError(f"--recipe {name_or_file}: no such recipe or file; there are {', '.join(known())}")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--recipe {name_or_file}: not YAML ({error})".replace("\n", " ")) from None
    if not isinstance(data, dict):
        raise ConfigError(f"--recipe {name_or_file}: a mapping with name, model, input and stages is needed")
    return data
