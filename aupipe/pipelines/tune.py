"""Search over a recipe's settings with Ray Tune. Re-run the same command to resume.

OUT/run.json          recipe, store and split that the search was started with
OUT/shared/           the stages that are the same in all trials, as a run of train.py
OUT/trials/NAME/      every trial, as a run of train.py, and its trial.json; `default` is the unmodified recipe
OUT/embeddings/       embeddings of stages that encode once, shared by all trials, unless the setting `embeddings`
                      names another folder
OUT/tune/             files of Ray Tune
OUT/best/             the best trial's checkpoint;  OUT/best.yaml  its recipe
OUT/trials.parquet    one row per trial;  OUT/trials.png  score over time
OUT/summary.json      written last

Trials train on most people of the train split and are scored on its other people (`splits.SEARCH`). The validation
split is never used for selection. At the end it compares the best trial with the unmodified recipe.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aupipe.data import samples, splits
from aupipe.errors import AupipeError, ConfigError, DatasetError, EnvironmentFailure
from aupipe.evaluation import decision, report
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.pipelines import ray_internals, train, train_stage
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.predict import member, predict
from aupipe.pipelines.session import session
from aupipe.pipelines.tune_search import check_searcher, run_trials
from aupipe.pipelines.tune_trial import TuneJob, train_job, trial_job
from aupipe.run_lease import run_lease
from aupipe.storage import Storage
from aupipe.training import run_dir
from aupipe.training.search_space import Dimension
from aupipe.tuning import search, trials
from aupipe.tuning.plot import picture
from aupipe.tuning.trials import Trial

logger = logging.getLogger(__name__)

RECIPE, TABLE, PICTURE = "best.yaml", "trials.parquet", "trials.png"


@dataclass(frozen=True)
class TunePlan:
    """A search that can be run.

    Attributes:
        space: key of a setting → its dimension.
        shared: stages that are trained once for all trials.
        scored: the store on whose validation split the best trial is scored.
        status: the status of each trial that was started.
        default: the plan of the unmodified recipe.
    """

    job: TuneJob
    space: Mapping[str, Dimension]
    shared: Sequence[str]
    scored: FaceStore
    status: Sequence[str]
    default: train.TrainPlan


def check(job: TuneJob) -> TunePlan:
    """Check what a search needs, and return its plan. Starts nothing.

    Raises:
        ConfigError: there is nothing to search, or the recipe, the store or the weights are invalid, or OUT contains
            another search.
        DatasetError: the store has no validation rows to score AUs on.
    """
    check_searcher(job.searcher)
    run_dir.check(Storage(job.out), _identity(job, FaceStore.open(job.store)))
    space, shared = search.search_space(job.recipe), search.shared(job.recipe)
    if (task := job.recipe.stages[job.recipe.needed()[-1]].tasks.au) is None:
        raise ConfigError("a search compares AU scores, but the recipe's last stage predicts none")
    scored = FaceStore.open(task.data.store or job.store)
    if "validation" not in scored.splits:
        raise DatasetError(
            f"{scored.storage.root} has no validation split to score the best trial on; fix: give another store"
        )
    samples.eval_samples(scored, splits.OFFICIAL, "au", leak=job.recipe.leak)  # the rows that `_unseen` scores
    status = [trial.status for trial in trials.read(Storage(job.out))]
    # A trial's recipe leaves out the stages that all trials share, so its folder is not that of this run.
    default = train.plan(train_job(job, job.recipe, f"{trials.FOLDER}/{search.DEFAULT}", job.workers))
    return TunePlan(job, space, list(shared.stages) if shared else [], scored, status, default)


def _identity(job: TuneJob, index: FaceStore) -> dict[str, Any]:
    """Return everything that determines the trials. A search only resumes with equal values."""
    own = {"search": job.recipe.model_dump(mode="json")["search"]}
    return run_dir.identity(job.recipe, index, splits.SEARCH) | own


def text(plan: TunePlan) -> str:
    """Return a plan for a terminal."""
    job, done = plan.job, sum(status != "running" for status in plan.status)
    return "\n".join(
        [
            f"{job.trials} trials ({job.searcher}), including the unmodified recipe: {done} done, "
            f"{len(plan.status) - done} started; workers each: {job.workers}",
            *(
                f"  {key}: {dimension.kind} {', '.join(map(str, dimension.ends))}"
                for key, dimension in plan.space.items()
            ),
            f"once for all trials: {', '.join(plan.shared) or 'nothing'}",
            train.text(plan.default),
        ]
    )


def tune(job: TuneJob) -> dict[str, Any]:
    """Run the trials, or resume them, write the files listed above, and return the summary.

    Raises:
        ConfigError: as `check`.
        AupipeError: no trial could be trained.
    """
    out, plan = Storage(job.out), check(job)
    run_dir.begin(out, _identity(job, FaceStore.open(job.store)))
    if (done := run_dir.summary(out)) is not None and done["trials"] >= job.trials:
        return done
    logger.info("%s", text(plan))
    ray_internals.configure_train()
    ray_internals.configure_tune()
    # Without a dashboard Ray Train never releases the resources of a trial that was stopped early.
    with run_lease(out), session(job.recipe.resources, dashboard=True, log_to_driver=False):
        check_visible_on_all_nodes(job.out, [job.store, train_stage.embeddings(train_job(job, job.recipe, ""))])
        starts = _shared(job)
        run_trials(job, starts)
        return _finish(job, plan.scored, starts)


def _shared(job: TuneJob) -> dict[str, str]:
    """Train the stages that all trials start from, encode their inputs, and return stage → checkpoint."""
    starts: dict[str, str] = {}
    if (recipe := search.shared(job.recipe)) is not None:
        run = train_job(job, recipe, "shared")
        run_dir.begin(Storage(run.out), run_dir.identity(recipe, FaceStore.open(job.store), run.split))
        train.run_stages(run)
        starts = {stage: Storage(run.out).path(train_stage.best(stage)) for stage in recipe.stages}
    default = trial_job(job, {}, starts)
    train_stage.encoded(default, default.recipe.needed()[0])
    return starts


def _finish(job: TuneJob, index: FaceStore, starts: Mapping[str, str]) -> dict[str, Any]:
    """Select the best trial, and write the results.

    It is compared with the default on people that were not used for selection, unless the default failed.
    """
    out = Storage(job.out)
    compared = _completed(job, starts)
    best, found = next(iter(compared.values())), trials.read(out)
    checkpoints = {name: out.path(f"{trial.folder}/{run_dir.BEST}") for name, trial in compared.items()}
    system, card = checkpoint.load(checkpoints[best.name])
    card = checkpoint.save(Storage(out.path(run_dir.BEST)), system, card)
    comment = f"trial {best.name} of {len(found)}, score {best.score:.4f} on people held out of training: {job.command}"
    out.write(RECIPE, search.to_yaml(job.recipe.changed(best.settings), comment))
    summary = {
        "recipe": job.recipe.name,
        "trials": len(found),
        "by_status": {status: sum(t.status == status for t in found) for status in ("finished", "stopped", "failed")},
        "failed": {trial.name: trial.reason for trial in found if trial.status == "failed"},
        "best": {"trial": best.name, "settings": best.settings, "score": best.score},
        "unseen": _unseen(job, index, checkpoints),
        "model_sha256": card.sha256,
        "train_s": round(sum(trial.train_s for trial in found), 1),
        "command": job.command,
    }
    out.write(run_dir.SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _completed(job: TuneJob, starts: Mapping[str, str]) -> dict[str, Trial]:
    """Return name → trial of the best trial and the default, after completing those that were stopped early.

    A trial that fails when it is completed is left out, and the next best is selected.

    Raises:
        ConfigError, EnvironmentFailure: a trial cannot be completed for a reason of another kind.
        AupipeError: no trial could be trained.
    """
    out = Storage(job.out)
    while True:
        found = trials.read(out)
        trained = {trial.name: trial for trial in trials.comparable(found)}
        if not trained:
            raise AupipeError(f"no trial could be trained; the first one: {found[0].reason}")
        out.write(TABLE, trials.to_parquet(job.recipe, search.search_space(job.recipe), found))
        out.write(PICTURE, picture(found, f"{job.recipe.name}: {len(found)} trials on {job.store}"))
        names = dict.fromkeys((trials.best(found).name, search.DEFAULT))
        compared = {name: trained[name] for name in names if name in trained}
        for trial in compared.values():
            try:
                train.train(trial_job(job, trial.settings, starts))
            except (ConfigError, EnvironmentFailure):
                raise
            except AupipeError as error:
                logger.warning("trial %s failed when it was completed: %s", trial.name, error)
                trials.fail(out, trial, str(error))
                break
        else:
            return compared


def _unseen(job: TuneJob, index: FaceStore, checkpoints: Mapping[str, str]) -> dict[str, Any]:
    """Return F1 of the best trial, the first of `checkpoints`, on the validation split.

    The difference to the default is included, unless the default is the best trial or failed.
    """
    part = splits.eval_part(index, splits.OFFICIAL, job.recipe.leak)
    place = train_stage.embeddings(train_job(job, job.recipe, ""))
    paths = list(checkpoints.values())
    found = predict(paths, index, (part,), job.recipe.inference, job.recipe.resources, place, "train")[part]
    members = [member(checkpoint.load_card(path), raw) for path, raw in zip(paths, found, strict=True)]
    best, *other = ([*decision.decide([one], "mean").values()][-1] for one in members)
    result = report.scores(best)
    return {
        "split": "validation",
        "videos": result["n_videos"],
        "macro_f1": result["macro_f1"],
        "ci95": result["ci95"]["macro_f1"],
        "floor": result["floor"],
        "against_default": report.against(best, other[0]) if other else None,
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary for a terminal."""
    best, unseen = summary["best"], summary["unseen"]
    states = ", ".join(f"{count} {status}" for status, count in summary["by_status"].items() if count)
    low, high = unseen["ci95"]
    lines = [
        f"{summary['trials']} trials: {states}",
        *(f"  {name} failed: {reason}" for name, reason in summary.get("failed", {}).items()),
        f"best: {best['trial']}, score {best['score']:.3f} on people held out of the train split",
        *(f"  {key}: {value}" for key, value in best["settings"].items()),
        f"on {unseen['videos']} validation videos, not used for selection: macro F1 {unseen['macro_f1']:.3f} "
        f"(95 % {low:.3f} … {high:.3f}), floor {unseen['floor']:.3f}",
    ]
    if (other := unseen["against_default"]) is not None:
        low, high = other["ci95"]
        lines.append(
            f"against the unmodified recipe ({other['macro_f1']:.3f}): {other['difference']:+.3f}, "
            f"95 % {low:+.3f} … {high:+.3f} (paired)"
        )
    return "\n".join(lines)
