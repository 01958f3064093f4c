"""The data of a stage's tasks: the store, the training rows, and the rows to score."""

from __future__ import annotations

from dataclasses import dataclass

from aupipe import facs
from aupipe.data import samples, splits
from aupipe.data.sampler import Task
from aupipe.data.samples import Samples
from aupipe.errors import ConfigError
from aupipe.faces import template
from aupipe.facestore.read import FaceStore
from aupipe.training.recipe import Recipe


@dataclass(frozen=True)
class TaskData:
    """Training and evaluation samples of one task."""

    index: FaceStore
    train: Samples
    eval: Samples | None  # None for identities, and if the store has no validation split


def task_data(recipe: Recipe, stage: str, index: FaceStore, split: str = splits.OFFICIAL) -> dict[Task, TaskData]:
    """Return the data of a stage's tasks.

    Raises:
        ConfigError: a store is named twice, or its crops follow another template.
        DatasetError: a task has no labeled rows.
    """
    found = {}
    for name, task in recipe.stages[stage].tasks.named.items():
        own = FaceStore.open(task.data.store) if task.data.store else index
        own = own.with_extra_stores([FaceStore.open(store) for store in task.data.add])
        for number, other in enumerate(every := (own, *own.added)):
            if other.storage.root in (before.storage.root for before in every[:number]):
                raise ConfigError(
                    f"stages.{stage}.tasks.{name}.data.add: {other.storage.root} would count twice; fix: name it once"
                )
            if template.distance(other.template, index.template) >= template.SAME_PX:
                raise ConfigError(
                    f"stages.{stage}.tasks.{name}.data: the crops of {other.storage.root} are aligned to another "
                    f"template than those of {index.storage.root}; remake one of the stores with preprocess.py"
                )
        classes = getattr(recipe.model_of(stage), "expressions", len(facs.EXPRESSIONS))
        if name == "expr":
            _check_classes(f"stages.{stage}.tasks.expr.data", own, classes, task.data.ignore)
        train = samples.train_samples(own, task.data, name, split, classes)
        evaluated = None
        if name != "identity" and (split != splits.OFFICIAL or "validation" in own.splits):
            evaluated = samples.eval_samples(own, split, name, classes, task.data.leak)
        found[name] = TaskData(own, train, evaluated)
    return found


def expression_names(data: dict[Task, TaskData], initial: tuple[str, ...] = facs.EXPRESSIONS) -> tuple[str, ...]:
    """Return the names of the expression classes of a stage's model, in label order.

    Args:
        initial: those of its initial weights, which a stage without the task expr keeps.
    """
    return data["expr"].index.card.expressions if "expr" in data else initial


def _check_classes(where: str, index: FaceStore, classes: int, ignore: tuple[str, ...]) -> None:
    """Raise an error if rows have a class that the model lacks and that is not ignored, or if stores disagree.

    Raises:
        ConfigError: as above, or `ignore` names no class, or one of the model.
    """
    names = index.card.expressions
    for other in index.added:
        count = min(len(names), len(other.card.expressions))
        if other.card.expressions[:count] != names[:count]:
            raise ConfigError(
                f"{where}.add: the classes of {other.storage.root} ({', '.join(other.card.expressions)}) are not those "
                f"of {index.storage.root} ({', '.join(names)}); fix: train on them in stages of their own"
            )
    if unknown := set(ignore) - {name for store in (index, *index.added) for name in store.card.expressions}:
        raise ConfigError(f"{where}.ignore: {min(unknown)} is no class of the store ({', '.join(names)})")
    if kept := {name for store in (index, *index.added) for name in store.card.expressions[:classes]} & set(ignore):
        raise ConfigError(
            f"{where}.ignore: {min(kept)} is one of the model's {classes} classes (only those beyond them); "
            "fix: lower model.expressions, or do not ignore it"
        )
    for store in (index, *index.added):
        own = store.card.expressions
        rows = [sum(split.expressions[place] for split in store.card.splits.values()) for place in range(len(own))]
        lacking = [n for n, name in enumerate(own) if n >= classes and rows[n] and name not in ignore]
        if lacking:
            named = ",".join(own[n] for n in lacking)
            raise ConfigError(
                f"{where}: {sum(rows[n] for n in lacking):,} rows of {store.storage.root} are {named}, and the model "
                f"has {classes} classes; fix: --set model.expressions={max(lacking) + 1}, or leave the rows out with "
                f"--set {where}.ignore=[{named}]"
            )
