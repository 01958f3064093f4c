"""The trials of a search under Ray Tune: their settings, number at a time, and early stopping."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from aupipe.errors import ConfigError
from aupipe.pipelines import ray_internals
from aupipe.pipelines.session import gpus_per_worker, label_selector_for, room
from aupipe.pipelines.tune_trial import DRIVER_CPUS, WORKER_CPUS, MachineError, TuneJob, run_trial, settings_of
from aupipe.storage import Storage
from aupipe.training.search_space import Dimension
from aupipe.tuning import search, trials
from aupipe.tuning.trials import Trial

logger = logging.getLogger(__name__)

MAX_LOSSES = 1000  # of a trial's driver; `run_trial` counts its own errors
CONCURRENT_ON_DEMAND = 4  # the default on a cluster that adds nodes on demand
REDUCTION = 3  # about one in three trials continues beyond a rung


def run_trials(job: TuneJob, starts: Mapping[str, str]) -> None:
    """Run the trials that are not complete: first those that were started, then new ones. Runs inside a session.

    Args:
        starts: stage → checkpoint, as in `search.of_trial`.
    """
    found = trials.read(Storage(job.out))
    started = [trial.settings for trial in found if trial.status == "running"]
    # Optuna also begins with the unmodified recipe. It proposes the other trials from the scores so far.
    drawn = search.draws(job.recipe, job.trials if job.searcher == "random" else 1)
    known = {trial.name for trial in found}
    new = [settings for settings in drawn if search.name_of(settings) not in known][: max(job.trials - len(found), 0)]
    if started + new:
        _fit(job, starts, {"settings": tune.grid_search(started + new)}, count=1)
    if job.searcher == "optuna" and (missing := job.trials - len(found) - len(new)) > 0:
        completed = trials.read(Storage(job.out))
        _fit(job, starts, space_of(job), count=missing, searcher=optuna(job.recipe.seed, completed))


def check_searcher(searcher: str) -> None:
    """Check that the searcher is installed.

    Raises:
        ConfigError: Optuna is selected but not installed.
    """
    if searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        raise ConfigError("--searcher optuna: Optuna is not installed; fix: pip install 'aupipe[search]'")


def _fit(
    job: TuneJob, starts: Mapping[str, str], space: dict[str, Any], *, count: int, searcher: Any = None
) -> None:  # fmt: skip
    out = Storage(job.out)
    path, filesystem = out.arrow_place("tune")
    found = [trial for trial in trials.read(out) if trial.status != "running"]
    epochs = job.recipe.stages[job.recipe.needed()[-1]].epochs
    trainable = tune.with_parameters(run_trial, job=job, starts=dict(starts))
    tune.Tuner(
        tune.with_resources(trainable, _driver_resources(job)),
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=count, max_concurrent_trials=trials_at_once(job), scheduler=scheduler(epochs, found),
            search_alg=searcher,
        ),
        run_config=tune.RunConfig(
            storage_path=path, storage_filesystem=filesystem, callbacks=[_Records(job)], verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),
        ),
    ).fit()  # fmt: skip


def trials_at_once(job: TuneJob) -> int:
    """Return the number of trials at a time.

    A cluster without room, and one whose pools are named (`resources.pools=true`), adds nodes on demand.
    """
    if job.concurrent is not None:
        return job.concurrent
    resources = job.recipe.resources
    total = room("train", resources)
    if gpus_per_worker(resources):
        fit = total["GPU"] // job.workers
    else:
        fit = int(total["CPU"] // (DRIVER_CPUS + WORKER_CPUS * job.workers))
    return max(fit, CONCURRENT_ON_DEMAND) if fit == 0 or resources.pools is True else fit


def _driver_resources(job: TuneJob) -> tune.PlacementGroupFactory:
    """Return the resources of a trial's driver, on a node of the pool `train`."""
    selector = label_selector_for("train", job.recipe.resources)
    options = {"bundle_label_selector": [selector]} if selector else {}
    return tune.PlacementGroupFactory([{"CPU": DRIVER_CPUS}], **options)


def scheduler(epochs: int, found: Sequence[Trial]) -> ASHAScheduler:
    """Return asynchronous successive halving (ASHA) over `epochs`, with the scores of completed trials."""
    # Epochs count from 0, so `max_t` is never reached, and a trial that is not stopped early ends by itself.
    asha = ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=epochs, grace_period=max(epochs // 5, 1),
        reduction_factor=REDUCTION,
    )  # fmt: skip
    for trial in found:
        ray_internals.replay_trial(asha, trial.name, trial.scores)
    return asha


def space_of(job: TuneJob) -> dict[str, Any]:
    """Return the search space in the types of Ray Tune."""
    return {"settings": {key: _domain(dimension) for key, dimension in search.search_space(job.recipe).items()}}


def _domain(dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return tune.choice(list(dimension.ends))
    return (tune.uniform if dimension.kind == "uniform" else tune.loguniform)(*dimension.ends)


def optuna(seed: int, found: Sequence[Trial]) -> Any:
    """Return Optuna's search with the scores of completed trials."""
    from ray.tune.search.optuna import OptunaSearch

    scored = [trial for trial in trials.comparable(found) if trial.settings]
    return OptunaSearch(
        metric="score",
        mode="max",
        seed=seed,
        points_to_evaluate=[{f"settings/{key}": value for key, value in trial.settings.items()} for trial in scored],
        evaluated_rewards=[trial.score for trial in scored],
    )


class _Records(tune.Callback):  # type: ignore[misc]
    """A log of the trials, a record of the end of trials that Ray Tune ended, and the end of a search."""

    def __init__(self, job: TuneJob) -> None:
        self._job = job

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:  # fmt: skip
        name = search.name_of(settings_of(self._job, trial.config))
        logger.info("trial %s epoch %d: score %.3f", name, result["epoch"] + 1, result["score"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "stopped")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the search if the error is of the machine; otherwise Ray Tune would start the driver again and again."""
        error = getattr(ray_internals.trial_error(trial), "cause", None)
        if isinstance(error, MachineError):
            raise error

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed", f"its driver was lost {MAX_LOSSES + 1} times: {trial.get_error()}")

    def _end(self, trial: Any, status: trials.Status, reason: str = "") -> None:
        ended = trials.end(Storage(self._job.out), settings_of(self._job, trial.config), status, reason)
        logger.info(
            "trial %s %s after %d epochs, best score %.3f%s",
            ended.name, ended.status, len(ended.scores), ended.score, f": {ended.reason}" if ended.reason else "",
        )  # fmt: skip
