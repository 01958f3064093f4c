"""A search over a recipe: the settings of each trial, the stages that it trains, and the stages that trials share.

Stages before the first searched stage are the same in every trial, so they are trained once.
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
DEFAULT = "default"  # the trial of the unmodified recipe


def search_space(recipe: Recipe) -> dict[str, Dimension]:
    """Return dotted key → values for the stages that a run of the recipe needs.

    Raises:
        ConfigError: the search space is empty, a key does not exist in the recipe, or a value is invalid.
    """
    found = {
        f"stages.{stage}.{key}": dimension
        for stage in recipe.needed()
        for key, dimension in recipe.search.get(stage, {}).items()
    }
    if not found:
        raise ConfigError(
            f"recipe {recipe.name} has no search space for the stages {', '.join(recipe.needed())}; add a "
            "search: section, as in aupipe/recipes/multilabel_transformer.yaml"
        )
    for key, dimension in found.items():
        for value in dimension.ends:
            changed = recipe.changed({key: value})
            if dimension.choice is None and isinstance(changed.value_of(key), int):
                raise ConfigError(
                    f"search: {key} has {dimension.kind}, which draws fractions (a whole number); "
                    f"fix: {key.split('.', 2)[2]}: {{choice: [{', '.join(f'{end:g}' for end in dimension.ends)}]}}"
                )
    return found


def draws(recipe: Recipe, count: int) -> list[Settings]:
    """Return `count` distinct random settings, fewer if there are no more. Includes the unmodified recipe ({}) first.

    The n-th draw depends only on the recipe, so a search that resumes or gets more trials repeats its first ones.
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
    """Return the name of a trial; equal settings have equal names."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8] if settings else DEFAULT


def shared(recipe: Recipe) -> Recipe | None:
    """Return a recipe of the stages that are trained once for all trials; None if there are none."""
    stages = _shared_stages(recipe)
    return _with_stages(recipe, {name: {} for name in stages}) if stages else None


def of_trial(recipe: Recipe, settings: Settings, starts: Mapping[str, str]) -> Recipe:
    """Return a recipe of the stages that a trial trains, with its settings.

    Args:
        starts: stage → checkpoint, for the stages of `shared`.
    """
    changed = recipe.changed(settings)
    own = [name for name in changed.needed() if name not in starts]
    changes: dict[str, dict[str, Any]] = {}
    for name in own:
        before = changed.stages[name].init.removeprefix(FROM_STAGE)
        changes[name] = {"init": starts[before]} if before in starts else {}
    return _with_stages(changed, changes)


def to_yaml(recipe: Recipe, comment: str) -> bytes:
    """Return the recipe with all settings explicit, as a file for `train.py --recipe FILE`."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    return f"# {comment}\n{text}".encode()


def _shared_stages(recipe: Recipe) -> list[str]:
    needed = recipe.needed()
    return needed[: min(needed.index(stage) for stage in recipe.search if stage in needed)]


def _with_stages(recipe: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Return the recipe with only these stages, changed as given, and without `fold` and `search`."""
    described = recipe.model_dump(mode="json") | {"fold": {}, "search": {}}
    stages = {name: described["stages"][name] | dict(changed) for name, changed in changes.items()}
    return load(Recipe, described | {"stages": stages})
