"""The trials of a search under Ray Tune: which run, how many at once, which stop early."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from aupipe.errors import ConfigError
from aupipe.pipelines.session import gpus_per_worker
from aupipe.pipelines.tune_trial import DRIVER_CPUS, WORKER_CPUS, TuneJob, run_trial, settings_of
from aupipe.storage import Storage
from aupipe.training.search_space import Dimension
from aupipe.tuning import search, trials
from aupipe.tuning.trials import Trial

logger = logging.getLogger(__name__)

MAX_TRIAL_FAILURES = 3  # of its processes; what cannot be trained is not tried again
REDUCTION = 3  # of the trials that come so far, about one in three goes on


def run_trials(job: TuneJob, starts: Mapping[str, str]) -> None:
    """Run the trials that are not done: those that were begun, then new ones. Runs inside a session.

    Args:
        starts: as in `search.of_trial`.
    """
    found = trials.read(Storage(job.out))
    begun = [trial.settings for trial in found if trial.status == "running"]
    # Optuna too begins with the recipe as it is, and then goes by what it has seen.
    drawn = search.draws(job.recipe, job.trials if job.searcher == "random" else 1)
    known = {trial.name for trial in found}
    new = [settings for settings in drawn if search.name_of(settings) not in known][: max(job.trials - len(found), 0)]
    if begun + new:
        _fit(job, starts, {"settings": tune.grid_search(begun + new)}, count=1)
    if job.searcher == "optuna" and (missing := job.trials - len(found) - len(new)) > 0:
        told = trials.read(Storage(job.out))
        _fit(job, starts, space_of(job), count=missing, searcher=optuna(job.recipe.seed, told))


def check(searcher: str) -> None:
    """Raises:
    ConfigError: Optuna is asked for and not installed.
    """
    if searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError("--searcher optuna: Optuna is not installed; pip install 'aupipe[search]'")


def _fit(
    job: TuneJob, starts: Mapping[str, str], space: dict[str, Any], *, count: int, searcher: Any = None
) -> None:  # fmt: skip
    out = Storage(job.out)
    found = [trial for trial in trials.read(out) if trial.status != "running"]
    epochs = job.recipe.stages[job.recipe.needed()[-1]].epochs
    trainable = tune.with_parameters(run_trial, job=job, starts=dict(starts))
    tune.Tuner(
        tune.with_resources(trainable, {"CPU": DRIVER_CPUS}),
        param_space=space,
        # Ray Tune's deadlock is more trials than there is room for: their drivers would hold what their workers need.
        tune_config=tune.TuneConfig(
            num_samples=count, max_concurrent_trials=_at_once(job), scheduler=scheduler(epochs, found),
            search_alg=searcher,
        ),
        run_config=tune.RunConfig(
            storage_path=out.path("tune"), callbacks=[_Records(job)], verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_FAILURES),
        ),
    ).fit()  # fmt: skip


def _at_once(job: TuneJob) -> int:
    """How many trials fit on what the cluster has now."""
    have = ray.cluster_resources()
    if gpus_per_worker(job.recipe.resources):
        return max(int(have.get("GPU", 0) // job.workers), 1)
    return max(int(have.get("CPU", 0) // (DRIVER_CPUS + WORKER_CPUS * job.workers)), 1)


def scheduler(epochs: int, found: Sequence[Trial]) -> ASHAScheduler:
    """Asynchronous successive halving over so many epochs; it remembers the trials that are done."""
    # Epochs count from 0, so none is number `epochs`: a trial that gets so far comes to its end by itself.
    asha = ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=epochs, grace_period=max(epochs // 5, 1),
        reduction_factor=REDUCTION,
    )  # fmt: skip
    for trial in found:
        past = SimpleNamespace(trial_id=trial.name)
        asha.on_trial_add(None, past)
        for epoch, score in enumerate(trial.scores):
            asha.on_trial_result(None, past, {"epoch": epoch, "score": score})
    return asha


def space_of(job: TuneJob) -> dict[str, Any]:
    """The space as Ray Tune has it."""
    return {"settings": {key: _domain(dimension) for key, dimension in search.search_space(job.recipe).items()}}


def _domain(dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return tune.choice(list(dimension.ends))
    return (tune.uniform if dimension.kind == "uniform" else tune.loguniform)(*dimension.ends)


def optuna(seed: int, found: Sequence[Trial]) -> Any:
    """Optuna's search, which has been told of the trials that are done."""
    from ray.tune.search.optuna import OptunaSearch

    told = [trial for trial in found if trial.scores and trial.settings]
    return OptunaSearch(
        metric="score",
        mode="max",
        seed=seed,
        points_to_evaluate=[{f"settings/{key}": value for key, value in trial.settings.items()} for trial in told],
        evaluated_rewards=[trial.score for trial in told],
    )


class _Records(tune.Callback):  # type: ignore[misc]
    """Logs, and writes down the end of trials that could not do so themselves."""

    def __init__(self, job: TuneJob) -> None:
        self._job = job

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:  # fmt: skip
        name = search.name_of(settings_of(self._job, trial.config))
        logger.info("trial %s epoch %d: score %.3f", name, result["epoch"] + 1, result["score"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed", f"it ended {MAX_TRIAL_FAILURES + 1} times: {trial.get_error()}")

    def _end(self, trial: Any, status: trials.Status, reason: str = "") -> None:
        ended = trials.end(Storage(self._job.out), settings_of(self._job, trial.config), status, reason)
        logger.info(
            "trial %s %s after %d epochs, best score %.3f%s",
            ended.name, ended.status, len(ended.scores), ended.score, f": {ended.reason}" if ended.reason else "",
        )  # fmt: skip
