"""Recipes: a model, its input and a list of training stages, read from `aupipe/recipes/NAME.yaml` or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from aupipe.config import (
    OVERLAP,
    Inference,
    Resources,
    Section,
    inner_sections,
    load,
    merge,
    of_kind,
    parse_override,
    parse_yaml,
    sets_no_kind,
    validate,
)
from aupipe.data.augment import AugmentConfig
from aupipe.data.sampler import Task
from aupipe.data.samples import DataConfig
from aupipe.data.splits import LeakFilter
from aupipe.errors import ConfigError, ManifestError
from aupipe.evaluation.calibration import RADII
from aupipe.manifests import decode_text
from aupipe.models.configs import ModelConfig
from aupipe.models.inputs import InputSpec
from aupipe.training.losses import AuLossConfig, ExprLossConfig, IdentityLossConfig
from aupipe.training.optim import OptimizerConfig
from aupipe.training.search_space import Dimension

FROM_STAGE = "stage:"
# Settings of `DataConfig` → the tasks that they are for
_ONLY_FOR = {"balance_classes": ("expr", "identity"), "ignore": ("expr",), "videos_are_people": ("identity",)}


class AuTask(Section):
    """Training on AU labels."""

    loss: AuLossConfig
    data: DataConfig = DataConfig()


class ExprTask(Section):
    """Training on expression classes."""

    loss: ExprLossConfig
    data: DataConfig = DataConfig()


class IdentityTask(Section):
    """Training on identities."""

    loss: IdentityLossConfig
    data: DataConfig = DataConfig()


class Tasks(Section):
    """The tasks of a stage, at least one. Several tasks alternate in the order expr, identity, au."""

    expr: ExprTask | None = None
    identity: IdentityTask | None = None
    au: AuTask | None = None

    @model_validator(mode="after")
    def _one_at_least(self) -> Tasks:
        if not self.named:
            raise ValueError("at least one of au, expr, identity is needed")
        for name, task in self.named.items():
            if task.data.intensity is not None and not (isinstance(task, AuTask) and task.loss.kind == "bce"):
                raise ValueError(f"{name}.data.intensity is only for the task au with the loss bce")
            for setting, allowed in _ONLY_FOR.items():
                if getattr(task.data, setting) and name not in allowed:
                    raise ValueError(f"{name}.data.{setting} is only for the task {' or '.join(allowed)}")
            if task.data.subset is not None and task.data.subset_choice == "rare" and name != "au":
                raise ValueError(f"{name}.data.subset of rare AUs is only for the task au; set subset_choice=uniform")
        return self

    @property
    def named(self) -> dict[Task, AuTask | ExprTask | IdentityTask]:
        """Name → task, for the tasks of the stage."""
        every: dict[Task, AuTask | ExprTask | IdentityTask | None] = {
            "expr": self.expr,
            "identity": self.identity,
            "au": self.au,
        }
        return {name: task for name, task in every.items() if task is not None}


class EncodeOnce(Section):
    """A frozen encoder encodes all crops once before the stage, and every epoch reads the stored embeddings."""

    copies: int = Field(default=0, ge=0)  # augmented copies, with one draw per track; 0: crops without augmentation


class Stage(Section):
    """One training stage. The parameters in `optimizer.groups` are trained; all others are frozen."""

    init: str = Field(min_length=1)  # random | timm (network!) | starter | FILE | RUN or checkpoint | stage:NAME
    model: dict[str, Any] = Field(default_factory=dict)  # overrides the recipe's model; with another name, replaces it
    tasks: Tasks
    alternate: Literal["epoch", "batch"] = "epoch"  # several tasks: a pass over each in turn, or a batch of each
    augment: AugmentConfig = AugmentConfig()
    encode_once: EncodeOnce | None = None  # None: crops are decoded, augmented and encoded in every epoch
    optimizer: OptimizerConfig
    epochs: int = Field(ge=1)  # Passes over the training data.
    batch: int = Field(ge=1)  # clips, over all workers
    accumulate: int = Field(default=1, ge=1)  # parts of a batch whose gradients are accumulated
    patience: int | None = Field(default=None, ge=1)  # stop after this many epochs without a better score
    cross_validate: int | None = Field(default=None, ge=2)  # first score this many folds with disjoint people

    @model_validator(mode="after")
    def _targets_can_be_mixed(self) -> Stage:
        if set(self.tasks.named) != {"au"} and self.augment.softens_targets:
            raise ValueError("mixup and label smoothing are only for the task au")
        if self.tasks.au and self.tasks.au.loss.kind == "bce_circle" and self.augment.softens_targets:
            raise ValueError("the loss bce_circle needs labels 0 and 1; switch off mixup_alpha and label_smoothing")
        return self

    @model_validator(mode="after")
    def _folds_can_be_scored(self) -> Stage:
        if self.cross_validate and not (self.tasks.au or self.tasks.expr):
            raise ValueError("cross_validate scores AUs or expressions; the task identity has no score")
        return self

    @model_validator(mode="after")
    def _copies_can_be_stored(self) -> Stage:
        if self.encode_once and self.augment.mixup_alpha:
            raise ValueError("mixup mixes crops of two videos, which encode_once cannot store; leave out one")
        if self.encode_once and self.encode_once.copies and self.augment == AugmentConfig():
            raise ValueError("encode_once.copies without any augmentation are all the same; set augment or copies=0")
        return self


class Recipe(Section):
    """A model, its input and its training stages."""

    name: str  # Name of the recipe.
    seed: int = Field(default=0, ge=0)  # Random seed of training; the result is deterministic for a given seed.
    model: ModelConfig
    input: InputSpec
    stages: dict[str, Stage] = Field(min_length=1)  # in order; the last one's result is the recipe's
    fold: dict[str, dict[str, Any]] = Field(
        default_factory=dict
    )  # official | 0 … 3: overrides the model in that run of --folds
    embeddings: str | None = None  # folder for `encode_once`; None: in the run. Runs may share one
    save_every_s: float = Field(default=120.0, ge=0)  # interval within an epoch; every epoch's end is saved too
    inference: Inference = Inference()
    # Candidate radii of smoothing on held-out videos, in frames on either side; [0]: thresholds alone are fitted.
    smoothing_radii: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=RADII, min_length=1)
    resources: Resources = Resources()
    half: bool = False  # store the weights of RUN/best as float16, which changes probabilities by about 0.001
    limits: str = ""  # limits of use, written into the model's card
    search: dict[str, dict[str, Dimension]] = Field(
        default_factory=dict
    )  # search space of tune.py: stage → dotted key below it (a number indexes a list) → values

    @model_validator(mode="before")
    @classmethod
    def _search_goes_with_its_stage(cls, data: Any) -> Any:
        """Drop the search space of a stage that is removed."""
        if not (isinstance(data, Mapping) and all(isinstance(data.get(k), Mapping) for k in ("stages", "search"))):
            return data
        gone = {name for name, stage in data["stages"].items() if stage is None}
        return {**data, "search": {name: keys for name, keys in data["search"].items() if name not in gone}}

    @field_validator("stages", "search", mode="before")
    @classmethod
    def _without_null(cls, named: Any) -> Any:
        """Remove entries that are null: `stages.NAME=null`, `search.NAME=null`."""
        return {k: v for k, v in named.items() if v is not None} if isinstance(named, Mapping) else named

    @field_validator("search", mode="before")
    @classmethod
    def _without_null_keys(cls, named: Any) -> Any:
        """Remove keys that are null from the search spaces."""
        return {name: cls._without_null(keys) for name, keys in named.items()} if isinstance(named, Mapping) else named

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        for number, (name, stage) in enumerate(self.stages.items()):
            self.model_of(name)
            before = list(self.stages)[:number]
            if stage.init.startswith(FROM_STAGE) and stage.init.removeprefix(FROM_STAGE) not in before:
                raise ValueError(
                    f"stages.{name}.init: {stage.init} names no earlier stage ({', '.join(before) or '–'})"
                )
        if unknown := [name for name in self.search if name not in self.stages]:
            raise ValueError(f"search.{unknown[0]}: there is no such stage")
        return self

    @property
    def leak(self) -> LeakFilter:
        """Leak filter of the last stage that is trained on AUs, with which the model is scored."""
        found = [stage.tasks.au.data.leak for stage in self.stages.values() if stage.tasks.au]
        return found[-1] if found else "off"

    @property
    def overlap(self) -> float:
        """Overlap of windows for scoring and for fitting thresholds."""
        return OVERLAP if self.inference.overlap is None else self.inference.overlap

    def model_of(self, stage: str) -> ModelConfig:
        """Return the recipe's model with the stage's overrides, or the stage's own model if it has another name."""
        changes = self.stages[stage].model
        other = changes.get("name", self.model.name) != self.model.name
        described = changes if other else merge(self.model.model_dump(), changes)
        config: ModelConfig = validate(ModelConfig, described, f"stages.{stage}.model")
        return config

    def needed(self) -> list[str]:
        """Return the last stage and the stages that it starts from, in order."""
        chain = [list(self.stages)[-1]]
        while (init := self.stages[chain[0]].init).startswith(FROM_STAGE):
            chain.insert(0, init.removeprefix(FROM_STAGE))
        return chain

    def changed(self, settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe with other values at dotted keys, e.g. `stages.train.optimizer.groups.0.schedule.lr`.

        Raises:
            ConfigError: a key does not exist, or a value is invalid.
        """
        described = self.model_dump(mode="json")
        for key, value in sorted(settings.items(), key=lambda each: sets_no_kind(each[0])):
            try:
                described = _put(described, key.split("."), value, [Recipe])
            except LookupError as error:
                raise ConfigError(f"setting {key!r}: {error}") from None
        return load(Recipe, described)

    def value_of(self, key: str) -> Any:
        """Return the value at a dotted key; a stage's `model` includes the values of the recipe's model."""
        found = self.model_dump(mode="json")
        for name, stage in found["stages"].items():
            stage["model"] = self.model_of(name).model_dump(mode="json")
        for part in key.split("."):
            found = found[int(part) if isinstance(found, list) else part]
        return found

    def for_fold(self, fold: str) -> Recipe:
        """Return the recipe of that run of `--folds`."""
        described = self.model_dump(mode="json") | {"fold": {}}
        return load(Recipe, merge(described, {"model": self.fold.get(fold, {})}))


def _put(described: Any, path: Sequence[str], value: Any, sections: Sequence[type[Section]]) -> Any:
    """Return `described` with another value at `path`; missing mappings on the path are created.

    With another `kind`, keys that the new kind lacks are dropped.
    """
    if not path:
        return value
    key, *rest = path
    inner = inner_sections(sections, key)
    if not isinstance(described, list):
        mapping = described if isinstance(described, dict) else {}
        if path == ["kind"]:
            mapping = of_kind(mapping, value, sections)
        return mapping | {key: _put(mapping.get(key), rest, value, inner)}
    if key not in map(str, range(len(described))):
        raise LookupError(f"{key} is no index below {len(described)}")
    return [_put(each, rest, value, inner) if str(n) == key else each for n, each in enumerate(described)]


def known() -> list[str]:
    """Return the names of the recipes that come with aupipe."""
    folder = resources.files("aupipe") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def read(name_or_file: str, *, quick: bool, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or file and apply its `quick:` section, ablations and overrides, in this order.

    Args:
        quick: whether the `quick:` section applies.
        overrides: KEY=VALUE; `ablation=ROW` applies the settings of one of the recipe's `ablations`.

    Raises:
        ConfigError: there is no such recipe or no quick section, or a setting is invalid.
    """
    data = _yaml(name_or_file)
    light, rows = data.pop("quick", None), data.pop("ablations", None) or {}
    if quick:
        if not isinstance(light, dict):
            raise ConfigError(f"recipe {name_or_file} has no quick: section; leave out --quick")
        data = merge(data, light, [Recipe])
    chosen = [item for item in overrides if item.partition("=")[0] == "ablation"]
    for item in chosen:
        data = merge(data, _ablation(rows, str(parse_override(item)["ablation"]), name_or_file), [Recipe])
    return load(Recipe, data, [item for item in overrides if item not in chosen])


def _ablation(rows: Any, row: str, name: str) -> dict[str, Any]:
    if not isinstance(rows, dict):
        raise ConfigError(f"recipe {name}: ablations is no mapping (row → settings, as full: {{model: …}})")
    if row not in rows:
        raise ConfigError(f"ablation={row}: recipe {name} has {', '.join(map(str, rows)) or 'no ablations'}")
    settings = rows[row] or {}
    if not isinstance(settings, dict):
        raise ConfigError(f"recipe {name}: ablations.{row} is {settings!r} (settings, as model: …)")
    return settings


def _yaml(name_or_file: str) -> dict[str, Any]:
    if name_or_file in known():
        text = (resources.files("aupipe") / "recipes" / f"{name_or_file}.yaml").read_text("utf-8")
    elif Path(name_or_file).is_file():
        try:
            text = decode_text(Path(name_or_file).read_bytes(), name_or_file)
        except ManifestError as error:
            raise ConfigError(f"--recipe {error}") from None
    else:
        raise ConfigError(f"--recipe {name_or_file}: no such recipe or file; allowed are {', '.join(known())}")
    data = parse_yaml(text, f"--recipe {name_or_file}:")
    if not isinstance(data, dict):
        raise ConfigError(f"--recipe {name_or_file}: a mapping with name, model, input and stages is needed")
    return data
