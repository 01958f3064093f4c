"""One trial of a search: a driver in a process of its own, with a Ray Train run of the trial's stages below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray.train
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from aupipe.data import splits
from aupipe.errors import AupipeError
from aupipe.facestore.read import FaceStore
from aupipe.pipelines import ray_internals, train
from aupipe.pipelines.train_stage import TrainJob
from aupipe.storage import Storage
from aupipe.training import run_dir
from aupipe.training.recipe import Recipe
from aupipe.tuning import search, trials
from aupipe.tuning.search import Settings

DRIVER_CPUS = 0.1
WORKER_CPUS = 0.9  # so a trial of one worker takes one CPU in all, and as many run at once as there are CPUs


@dataclass(frozen=True)
class TuneJob:
    recipe: Recipe
    store: str
    out: str
    trials: int = 8  # the recipe as it is among them
    workers: int = 1  # of a trial
    searcher: str = "random"  # or optuna
    command: str = ""


def train_job(job: TuneJob, recipe: Recipe, folder: str, workers: int | None = None) -> TrainJob:
    """A run below the search's folder. All of them share embeddings."""
    place = job.recipe.embeddings or Storage(job.out).path("embeddings")
    return TrainJob(
        recipe=recipe.model_copy(update={"embeddings": place}),
        store=job.store,
        out=Storage(job.out).path(folder),
        workers=workers,
        split=splits.SEARCH,
        command=job.command,
    )


def trial_job(job: TuneJob, settings: Settings, starts: Mapping[str, str]) -> TrainJob:
    """The run of a trial; `starts` as in `search.of_trial`."""
    folder = f"{trials.FOLDER}/{search.name_of(settings)}"
    mine = train_job(job, search.of_trial(job.recipe, settings, starts), folder, job.workers)
    return replace(mine, worker_cpus=WORKER_CPUS)


def settings_of(job: TuneJob, config: Mapping[str, Any]) -> Settings:
    """What Ray Tune gave to a trial."""
    space = search.search_space(job.recipe)
    return {key: space[key].tidy(value) for key, value in config["settings"].items()}


def run_trial(config: dict[str, Any], job: TuneJob, starts: Mapping[str, str]) -> None:
    """What Ray Tune runs. A trial that cannot be trained, as one of too high a learning rate, has failed by itself and
    ends as usual; what else goes wrong is for Ray Tune to try again.
    """
    out, settings = Storage(job.out), settings_of(job, config)
    trial = trials.begin(out, settings)
    if trial.status != "running":
        return
    # A trial that goes on tells its past first: Ray Tune forgets with its driver.
    for line in trials.epochs(out, trial):
        tune.report(line)
    mine = replace(trial_job(job, settings, starts), callbacks=(_Epochs(),))
    ray_internals.configure_train()
    try:
        run_dir.begin(Storage(mine.out), run_dir.identity(mine.recipe, FaceStore.open(mine.store), mine.split))
        train.run_stages(mine)
    except AupipeError as error:
        trials.end(out, settings, "failed", str(error))
    else:
        trials.end(out, settings, "finished")


class _Epochs(TuneReportCallback):  # type: ignore[misc]
    """Passes the figures of whole epochs on to Ray Tune."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: ray.train.Checkpoint) -> None:
        if "epoch" in metrics[0]:
            super().after_report(run_context, metrics, checkpoint)
