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
        ConfigError: a store's crops follow another template.
        DatasetError: a task has no labeled rows.
    """
    found = {}
    for name, task in recipe.stages[stage].tasks.named.items():
        own = FaceStore.open(task.data.store) if task.data.store else index
        own = own.with_extra_stores([FaceStore.open(store) for store in task.data.add])
        for other in (own, *own.added):
            if template.distance(other.template, index.template) >= template.SAME_PX:
                raise ConfigError(
                    f"stages.{stage}.tasks.{name}.data: the crops of {other.storage.root} are aligned to another "
                    f"template than those of {index.storage.root}; remake one of the stores with preprocess.py"
                )
        # A class beyond those of the model counts as unlabeled, e.g. Other of eight for a head with seven classes.
        classes = getattr(recipe.model_of(stage), "expressions", len(facs.EXPRESSIONS))
        train = samples.train_samples(own, task.data, name, split, classes)
        evaluated = None
        if name != "identity" and (split != splits.OFFICIAL or "validation" in own.splits):
            evaluated = samples.eval_samples(own, split, name, classes)
        found[name] = TaskData(own, train, evaluated)
    return found
