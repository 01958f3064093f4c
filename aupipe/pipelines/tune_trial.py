"""One trial of a search: a driver process that runs the trial's stages with Ray Train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray.train
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from aupipe.data import splits
from aupipe.edge_errors import is_of_machine, machine_fault
from aupipe.errors import AupipeError, EnvironmentFailure, one_line
from aupipe.facestore.read import FaceStore
from aupipe.pipelines import ray_internals, train
from aupipe.pipelines.train_stage import TrainJob
from aupipe.storage import Storage
from aupipe.training import run_dir
from aupipe.training.recipe import Recipe
from aupipe.tuning import search, trials
from aupipe.tuning.search import Settings

DRIVER_CPUS = 0.001  # so little that drivers never take the room of their workers, which would be a deadlock
WORKER_CPUS = 0.99  # one trial of one worker per CPU runs at a time
MAX_FAILURES = 3  # errors of a trial's driver; a lost node is none


class MachineError(EnvironmentFailure):
    """An error of a trial that all trials would have, such as a full disk."""


@dataclass(frozen=True)
class TuneJob:
    recipe: Recipe
    store: str
    out: str
    trials: int = 8  # including the unmodified recipe
    workers: int = 1  # per trial
    concurrent: int | None = None  # trials at a time; None: as many as fit now, on a cluster that grows at least 4
    searcher: str = "random"  # or optuna
    command: str = ""


def train_job(job: TuneJob, recipe: Recipe, folder: str, workers: int | None = None) -> TrainJob:
    """Return a run below the search's folder. All runs share embeddings."""
    embeddings = job.recipe.embeddings or Storage(job.out).path("embeddings")
    return TrainJob(
        recipe=recipe.model_copy(update={"embeddings": embeddings}),
        store=job.store,
        out=Storage(job.out).path(folder),
        workers=workers,
        split=splits.SEARCH,
        command=job.command,
    )


def trial_job(job: TuneJob, settings: Settings, starts: Mapping[str, str]) -> TrainJob:
    """Return the run of a trial; `starts` as in `search.of_trial`."""
    folder = f"{trials.FOLDER}/{search.name_of(settings)}"
    run = train_job(job, search.of_trial(job.recipe, settings, starts), folder, job.workers)
    return replace(run, worker_cpus=WORKER_CPUS)


def settings_of(job: TuneJob, config: Mapping[str, Any]) -> Settings:
    """Return the settings that Ray Tune chose for a trial."""
    space = search.search_space(job.recipe)
    return {key: space[key].tidy(value) for key, value in config["settings"].items()}


def run_trial(config: dict[str, Any], job: TuneJob, starts: Mapping[str, str]) -> None:
    """Run one trial in a driver of Ray Tune.

    A trial whose settings do not fit together, or whose training fails, for example by a high learning rate, ends as
    `failed`. Ray Tune retries after any other error, and without limit after the loss of a node.

    Raises:
        MachineError: a full disk or the like, which ends the search. The trial is not recorded as ended.
    """
    try:
        _run_trial(config, job, starts)
    except Exception as error:
        if named := machine_fault(error):
            raise MachineError(str(named)) from error
        raise


def _run_trial(config: dict[str, Any], job: TuneJob, starts: Mapping[str, str]) -> None:
    out, settings = Storage(job.out), settings_of(job, config)
    trial = trials.begin(out, settings)
    if trial.status != "running":
        return
    # A resumed trial first reports its earlier epochs, because Ray Tune keeps them only as long as its driver.
    for line in trials.epochs(out, trial):
        tune.report(line)
    ray_internals.configure_train()
    try:
        run = trial_job(job, settings, starts)
        train.plan(run)
        run_dir.begin(Storage(run.out), run_dir.identity(run.recipe, FaceStore.open(run.store), run.split))
        train.run_stages(replace(run, callbacks=(_Epochs(),)))
    except Exception as error:
        if is_of_machine(error):
            raise
        if isinstance(error, AupipeError):
            trials.end(out, settings, "failed", str(error))
            return
        if trials.count_failure(out, settings) > MAX_FAILURES:
            trials.end(out, settings, "failed", f"failed {MAX_FAILURES + 1} times: {one_line(error)}")
            return
        raise
    else:
        trials.end(out, settings, "finished")


class _Epochs(TuneReportCallback):  # type: ignore[misc]
    """A callback that reports the figures of whole epochs to Ray Tune."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: ray.train.Checkpoint) -> None:
        if "epoch" in metrics[0]:
            super().after_report(run_context, metrics, checkpoint)
