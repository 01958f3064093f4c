"""A search over a recipe: which settings are tried, what each trial trains, and what all trials share.

Stages before the first that is searched are the same in every trial, so they are trained once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from aupipe.config import load
from aupipe.data import sampler
from aupipe.errors import ConfigError
from aupipe.training.recipe import FROM_STAGE, Recipe
from aupipe.training.search_space import Dimension

Settings = dict[str, Any]  # dotted key of the recipe → value
DEFAULT = "default"  # the trial of the recipe as it is


def search_space(recipe: Recipe) -> dict[str, Dimension]:
    """Dotted key → values, of the stages that a run of the recipe needs.

    Raises:
        ConfigError: there is nothing to search, a key that the recipe does not have, or a value that cannot be there.
    """
    found = {
        f"stages.{stage}.{key}": dimension
        for stage in recipe.needed()
        for key, dimension in recipe.search.get(stage, {}).items()
    }
    if not found:
        raise ConfigError(
            f"recipe {recipe.name} says nothing to search for the stages {', '.join(recipe.needed())}; give it a "
            "search: section, as in aupipe/recipes/multilabel_transformer.yaml"
        )
    for key, dimension in found.items():
        for value in dimension.ends:
            recipe.changed({key: value})
    return found


def draws(recipe: Recipe, count: int) -> list[Settings]:
    """So many different settings, drawn at random, the recipe's own ({}) first; fewer if there are no more.

    The n-th depends on the recipe alone, so a search that goes on, or gets more trials, finds those that it had.
    """
    dimensions = search_space(recipe)
    found: list[Settings] = [{}]
    for number in range(100 * count):
        if len(found) >= count:
            break
        rng = np.random.default_rng(sampler.seed_of(recipe.seed, "search", number))
        drawn = {key: dimension.draw(rng) for key, dimension in dimensions.items()}
        if drawn not in found:
            found.append(drawn)
    return found


def name_of(settings: Settings) -> str:
    """Of a trial: the same settings have the same name."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8] if settings else DEFAULT


def shared(recipe: Recipe) -> Recipe | None:
    """The stages that are trained once for all trials; None if there are none."""
    stages = _shared_stages(recipe)
    return _with_stages(recipe, {name: {} for name in stages}) if stages else None


def of_trial(recipe: Recipe, settings: Settings, starts: Mapping[str, str]) -> Recipe:
    """The stages that a trial trains, with its settings.

    Args:
        starts: the checkpoints of the stages that `shared` has trained.
    """
    wanted = recipe.changed(settings)
    own = [name for name in wanted.needed() if name not in starts]
    changes: dict[str, dict[str, Any]] = {}
    for name in own:
        before = wanted.stages[name].init.removeprefix(FROM_STAGE)
        changes[name] = {"init": starts[before]} if before in starts else {}
    return _with_stages(wanted, changes)


def to_yaml(recipe: Recipe, comment: str) -> bytes:
    """The recipe with every setting spelt out, as `train.py --recipe FILE` reads it."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    return f"# {comment}\n{text}".encode()


def _shared_stages(recipe: Recipe) -> list[str]:
    needed = recipe.needed()
    return needed[: min(needed.index(stage) for stage in recipe.search if stage in needed)]


def _with_stages(recipe: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """The recipe with these stages alone, changed so, and without what concerns whole runs."""
    described = recipe.model_dump(mode="json") | {"fold": {}, "search": {}}
    stages = {name: described["stages"][name] | dict(changed) for name, changed in changes.items()}
    return load(Recipe, described | {"stages": stages})
