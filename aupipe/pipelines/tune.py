"""Search over a recipe's settings with Ray Tune; the same command goes on where it stopped.

OUT/search.json            what the search was started with
OUT/shared/                the stages that are the same in all trials, as a run of train.py
OUT/trials/NAME/           every trial, as a run of train.py, and its trial.json; `default` is the recipe as it is
OUT/embeddings/            of stages that encode once, for all trials, unless the setting `embeddings` names a place
OUT/best.yaml              the recipe with the best trial's settings;  OUT/best/ that trial's checkpoint
OUT/trials.parquet, .png   a row a trial; score over time
OUT/summary.json           written last

Trials learn from most people of the train split and are judged by the others of it (`splits.SEARCH`). Nothing is chosen
by the validation split, so the best trial and the default are compared there.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler

from aupipe.errors import AupipeError, ConfigError, DatasetError
from aupipe.facestore.read import StoreIndex
from aupipe.learning import run, search, splits, trials
from aupipe.learning.search import Settings
from aupipe.learning.trials import Trial
from aupipe.models import checkpoint
from aupipe.pipelines import train
from aupipe.pipelines.claim import claim
from aupipe.pipelines.session import gpus_per_worker, session
from aupipe.pipelines.train_stage import best as best_of_stage
from aupipe.pipelines.train_stage import encoded
from aupipe.pipelines.tune_trial import DRIVER_CPUS, WORKER_CPUS, TuneJob, run_trial, train_job, trial_job
from aupipe.report import search as picture
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

MAX_TRIAL_FAILURES = 3  # of its processes; what cannot be trained is not tried again
REDUCTION = 3  # of the trials that come so far, about one in three goes on


def describe(job: TuneJob) -> str:
    """The plan of a search, and what of it is done. Starts nothing.

    Raises:
        ConfigError: there is nothing to search, or something is wrong with the recipe, the store or the weights.
    """
    space = search.space(job.recipe)
    if "validation" not in StoreIndex.open(job.store).splits:
        raise DatasetError(f"{job.store} has no validation split, so nobody would be left to compare the best trial on")
    if job.searcher == "optuna":
        _optuna()
    found = trials.read(Storage(job.out))
    ended = [trial for trial in found if trial.status != "running"]
    shared = search.shared(job.recipe)
    lines = [
        f"{job.trials} trials ({job.searcher}), the recipe as it is among them; {len(ended)} done, "
        f"{len(found) - len(ended)} begun; {job.workers} worker{'s' * (job.workers > 1)} each",
        *(f"  {key}: {dimension.kind} {', '.join(map(str, dimension.ends))}" for key, dimension in space.items()),
        f"trained once for all trials: {', '.join(shared.stages) if shared else 'nothing'}",
        "a trial:",
        train.describe(train_job(job, job.recipe, f"{trials.FOLDER}/{search.DEFAULT}", job.workers)),
    ]
    return "\n".join(lines)


def tune(job: TuneJob) -> dict[str, Any]:
    """Run the trials, or the rest of them, and leave what the module says. Returns the summary.

    Raises:
        ConfigError: as `describe`, or OUT holds another search.
        AupipeError: no trial could be trained.
    """
    out = Storage(job.out)
    index = StoreIndex.open(job.store)
    plan = describe(job)
    wanted = run.identity(job.recipe, index, splits.SEARCH)
    run.begin(out, wanted | {"search": job.recipe.model_dump(mode="json")["search"]})
    if (done := run.summary(out)) is not None and done["trials"] >= job.trials:
        return done
    logger.info("%s", plan)
    train.configure_ray()
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # a trial's run keeps its own figures
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends a search as it ends any job
    with claim(out), session(dashboard=True, log_to_driver=False):
        starts = _shared(job)
        _search(job, starts)
        return _finish(job, index, starts)


def _shared(job: TuneJob) -> dict[str, str]:
    """Train what all trials start from, and encode what they look at: stage → checkpoint."""
    starts: dict[str, str] = {}
    if (recipe := search.shared(job.recipe)) is not None:
        mine = train_job(job, recipe, "shared")
        run.begin(Storage(mine.out), run.identity(recipe, StoreIndex.open(job.store), mine.split))
        train.run_stages(mine)
        starts = {stage: Storage(mine.out).path(best_of_stage(stage)) for stage in recipe.stages}
    default = trial_job(job, {}, starts)
    encoded(default, default.recipe.needed()[0])
    return starts


def _search(job: TuneJob, starts: Mapping[str, str]) -> None:
    """Run the trials that are not done: those that were begun, then new ones."""
    found = trials.read(Storage(job.out))
    todo = [trial.settings for trial in found if trial.status == "running"]
    drawn = search.draws(job.recipe, job.trials if job.searcher == "random" else 1)
    known = {trial.name for trial in found}
    new = [settings for settings in drawn if search.name_of(settings) not in known][: max(job.trials - len(found), 0)]
    if todo + new:
        _fit(job, starts, {"settings": ray_tune.grid_search(todo + new)}, len(todo + new))
    if (missing := job.trials - len(found) - len(new)) > 0 and job.searcher == "optuna":
        space = {key: _domain(dimension) for key, dimension in search.space(job.recipe).items()}
        _fit(job, starts, {"settings": space}, missing, _optuna()(**_told(job)))


def _fit(job: TuneJob, starts: Mapping[str, str], space: Mapping[str, Any], count: int, searcher: Any = None) -> None:
    out = Storage(job.out)
    at_once = _at_once(job)
    logger.info("%d trials, %d at once", count, min(count, at_once))
    trainable = ray_tune.with_parameters(run_trial, job=job, starts=dict(starts))
    ray_tune.Tuner(
        ray_tune.with_resources(trainable, {"CPU": DRIVER_CPUS}),
        param_space=dict(space),
        tune_config=ray_tune.TuneConfig(
            num_samples=count if searcher else 1, max_concurrent_trials=at_once, search_alg=searcher,
            scheduler=_scheduler(job),
        ),
        run_config=ray_tune.RunConfig(
            storage_path=out.path("tune"), callbacks=[_Records(job)], verbose=0,
            failure_config=ray_tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES),
        ),
    ).fit()  # fmt: skip


def _at_once(job: TuneJob) -> int:
    """How many trials fit on what the cluster has now."""
    have = ray.cluster_resources()
    if gpus_per_worker(job.recipe.resources):
        return max(int(have.get("GPU", 0) // job.workers), 1)
    return max(int(have.get("CPU", 0) // (DRIVER_CPUS + WORKER_CPUS * job.workers)), 1)


def _scheduler(job: TuneJob) -> ASHAScheduler:
    """Asynchronous successive halving over the epochs of the last stage, which remembers the trials that are done."""
    epochs = job.recipe.stages[job.recipe.needed()[-1]].epochs
    # Epochs count from 0 and none is number `epochs`: a trial that reaches its end comes to it by itself.
    scheduler = ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=epochs, grace_period=max(epochs // 5, 1),
        reduction_factor=REDUCTION,
    )  # fmt: skip
    for trial in trials.read(Storage(job.out)):
        if trial.status != "running":
            past = SimpleNamespace(trial_id=trial.name)
            scheduler.on_trial_add(None, past)
            for epoch, score in enumerate(trial.scores):
                scheduler.on_trial_result(None, past, {"epoch": epoch, "score": score})
    return scheduler


def _domain(dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return ray_tune.choice(list(dimension.ends))
    return (ray_tune.uniform if dimension.kind == "uniform" else ray_tune.loguniform)(*dimension.ends)


def _optuna() -> Any:
    """Raises:
    ConfigError: Optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("--searcher optuna: Optuna is not installed; pip install 'aupipe[search]'")
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch


def _told(job: TuneJob) -> dict[str, Any]:
    """Arguments of Optuna's search: what it may know from trials that are done."""
    found = [trial for trial in trials.read(Storage(job.out)) if trial.scores and trial.settings]
    return {
        "metric": "score",
        "mode": "max",
        "seed": job.recipe.seed,
        "points_to_evaluate": [
            {f"settings/{key}": value for key, value in trial.settings.items()} for trial in found
        ] or None,
        "evaluated_rewards": [trial.score for trial in found] or None,
    }  # fmt: skip


class _Records(ray_tune.Callback):  # type: ignore[misc]
    """Writes down how trials end that could not do so themselves, and logs."""

    def __init__(self, job: TuneJob) -> None:
        self._job, self._space = job, search.space(job.recipe)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        name = search.name_of(self._settings(trial))
        logger.info("trial %s epoch %d: score %.3f", name, result["epoch"] + 1, result["score"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed", f"its processes died {MAX_TRIAL_FAILURES + 1} times")

    def _settings(self, trial: Any) -> Settings:
        return {key: self._space[key].tidy(value) for key, value in trial.config["settings"].items()}

    def _end(self, trial: Any, status: trials.Status, reason: str = "") -> None:
        ended = trials.end(Storage(self._job.out), self._settings(trial), status, reason)
        logger.info("trial %s %s%s after %d epochs: score %.3f", ...)
