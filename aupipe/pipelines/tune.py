"""Search over a recipe's settings with Ray Tune; the same command goes on where it stopped.

OUT/run.json          what the search was started with
OUT/shared/           the stages that are the same in all trials, as a run of train.py
OUT/trials/NAME/      every trial, as a run of train.py, and its trial.json; `default` is the recipe as it is
OUT/embeddings/       of stages that encode once, for all trials, unless the setting `embeddings` names another place
OUT/tune/             Ray Tune's own
OUT/best/             the best trial's checkpoint;  OUT/best.yaml  its recipe
OUT/trials.parquet    a row a trial;  OUT/trials.png  score over time
OUT/summary.json      written last

Trials learn from most people of the train split and are judged by the others of it (`splits.SEARCH`). Nothing is chosen
by the validation split, so there the best trial is compared with the recipe as it is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from aupipe.data import splits
from aupipe.errors import AupipeError, ConfigError, DatasetError
from aupipe.evaluation import decision, report
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.pipelines import train, train_stage
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.predict import member, predict
from aupipe.pipelines.session import session
from aupipe.pipelines.tune_search import check, run_trials
from aupipe.pipelines.tune_trial import TuneJob, train_job, trial_job
from aupipe.run_lease import run_lease
from aupipe.storage import Storage
from aupipe.training import run_dir
from aupipe.tuning import search, trials
from aupipe.tuning.plot import picture

logger = logging.getLogger(__name__)

# What differs from Ray's defaults; a variable that is set already is left as it is.
RAY_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run of a trial keeps its own figures
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends a search as it ends any job
    "RAY_AIR_NEW_OUTPUT": "0",  # or Ray Tune prints tables, whatever it was told
}

RECIPE, TABLE, PICTURE = "best.yaml", "trials.parquet", "trials.png"


def describe(job: TuneJob) -> str:
    """The plan of a search, and what of it is done. Starts nothing.

    Raises:
        ConfigError: there is nothing to search, or something is wrong with the recipe, the store or the weights.
    """
    check(job.searcher)
    space, shared = search.search_space(job.recipe), search.shared(job.recipe)
    if "validation" not in FaceStore.open(job.store).splits:
        raise DatasetError(f"{job.store} has no validation split, so nobody would be left to judge the best trial by")
    if job.recipe.stages[job.recipe.needed()[-1]].tasks.au is None:
        raise ConfigError("a search compares AU scores; the recipe's last stage learns none")
    found = trials.read(Storage(job.out))
    done = sum(trial.status != "running" for trial in found)
    return "\n".join(
        [
            f"{job.trials} trials ({job.searcher}), the recipe as it is among them: {done} done, {len(found) - done} "
            f"begun; workers each: {job.workers}",
            *(f"  {key}: {dimension.kind} {', '.join(map(str, dimension.ends))}" for key, dimension in space.items()),
            f"once for all trials: {', '.join(shared.stages) if shared else 'nothing'}",
            train.describe(train_job(job, job.recipe, f"{trials.FOLDER}/{search.DEFAULT}", job.workers)),
        ]
    )


def tune(job: TuneJob) -> dict[str, Any]:
    """Run the trials, or the rest of them, and leave what the module says. Returns the summary.

    Raises:
        ConfigError: as `describe`, or OUT holds another search.
        AupipeError: no trial could be trained.
    """
    out, index = Storage(job.out), FaceStore.open(job.store)
    plan = describe(job)
    wanted = run_dir.identity(job.recipe, index, splits.SEARCH)
    run_dir.begin(out, wanted | {"search": job.recipe.model_dump(mode="json")["search"]})
    if (done := run_dir.summary(out)) is not None and done["trials"] >= job.trials:
        return done
    logger.info("%s", plan)
    train.configure_ray()
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the figures that it was told not to write
    # Without a dashboard Ray Train never gives back what a trial held that was stopped early.
    with run_lease(out), session(dashboard=True, log_to_driver=False):
        check_visible_on_all_nodes(job.out, [job.store, train_stage.embeddings(train_job(job, job.recipe, ""))])
        starts = _shared(job)
        run_trials(job, starts)
        return _finish(job, index, starts)


def _shared(job: TuneJob) -> dict[str, str]:
    """Train what all trials start from and encode what they look at; stage → checkpoint."""
    starts: dict[str, str] = {}
    if (recipe := search.shared(job.recipe)) is not None:
        mine = train_job(job, recipe, "shared")
        run_dir.begin(Storage(mine.out), run_dir.identity(recipe, FaceStore.open(job.store), mine.split))
        train.run_stages(mine)
        starts = {stage: Storage(mine.out).path(train_stage.best(stage)) for stage in recipe.stages}
    default = trial_job(job, {}, starts)
    train_stage.encoded(default, default.recipe.needed()[0])
    return starts


def _finish(job: TuneJob, index: FaceStore, starts: Mapping[str, str]) -> dict[str, Any]:
    """Choose the best trial, train it and the default to their ends if they were stopped, compare them on people that
    nothing was chosen by, and write the results.
    """
    out = Storage(job.out)
    found = trials.read(out)
    trained = {trial.name: trial for trial in found if trial.scores}
    if not trained:
        raise AupipeError(f"no trial could be trained; the first one: {found[0].reason}")
    best = trials.best(list(trained.values()))
    out.write(TABLE, trials.to_parquet(job.recipe, search.search_space(job.recipe), found))
    out.write(PICTURE, picture(found, f"{job.recipe.name}: {len(found)} trials on {job.store}"))
    compared = {name: trained[name] for name in dict.fromkeys((best.name, search.DEFAULT)) if name in trained}
    for trial in compared.values():
        train.train(trial_job(job, trial.settings, starts))
    checkpoints = {name: out.path(f"{trial.folder}/{run_dir.BEST}") for name, trial in compared.items()}
    system, card = checkpoint.load(checkpoints[best.name])
    card = checkpoint.save(Storage(out.path(run_dir.BEST)), system, card)
    comment = f"trial {best.name} of {len(found)}, score {best.score:.4f} on people held out of training: {job.command}"
    out.write(RECIPE, search.to_yaml(job.recipe.changed(best.settings), comment))
    summary = {
        "recipe": job.recipe.name,
        "trials": len(found),
        "by_status": {status: sum(t.status == status for t in found) for status in ("finished", "stopped", "failed")},
        "best": {"trial": best.name, "settings": best.settings, "score": best.score},
        "unseen": _unseen(job, index, checkpoints),
        "model_sha256": card.sha256,
        "train_s": round(sum(trial.train_s for trial in found), 1),
        "command": job.command,
    }
    out.write(run_dir.SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _unseen(job: TuneJob, index: FaceStore, checkpoints: Mapping[str, str]) -> dict[str, Any]:
    """F1 of the best trial, the first of `checkpoints`, on the validation split, and against the default if it is not
    that itself.
    """
    part = splits.eval_part(index, splits.OFFICIAL)
    place = train_stage.embeddings(train_job(job, job.recipe, ""))
    paths = list(checkpoints.values())
    found = predict(paths, index, (part,), job.recipe.inference, job.recipe.resources, place)[part]
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


def text(summary: Mapping[str, Any]) -> str:
    """The summary for a terminal."""
    best, unseen = summary["best"], summary["unseen"]
    states = ", ".join(f"{count} {status}" for status, count in summary["by_status"].items() if count)
    low, high = unseen["ci95"]
    lines = [
        f"{summary['trials']} trials: {states}",
        f"best: {best['trial']}, score {best['score']:.3f} on people held out of the train split",
        *(f"  {key}: {value}" for key, value in best["settings"].items()),
        f"on {unseen['videos']} videos of validation, by which nothing was chosen: macro F1 {unseen['macro_f1']:.3f} "
        f"(95 % {low:.3f} … {high:.3f}), floor {unseen['floor']:.3f}",
    ]
    if (other := unseen["against_default"]) is not None:
        low, high = other["ci95"]
        lines.append(
            f"against the recipe as it is ({other['macro_f1']:.3f}): {other['difference']:+.3f}, "
            f"95 % {low:+.3f} … {high:+.3f} (paired)"
        )
    return "\n".join(lines)
