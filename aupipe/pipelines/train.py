"""Training as Ray Train jobs: one run a stage, a checkpoint an epoch; the same command goes on where it stopped.

RUN/run.json          what the run was started with
RUN/stages/NAME/      Ray Train's own folder of a stage; NAME-people-K: of a fold of its cross-validation
RUN/embeddings/       of stages that encode once, unless the setting `embeddings` names another place
RUN/metrics.jsonl     one line an epoch;  RUN/tensorboard/NAME/
RUN/best/             the checkpoint, with thresholds and smoothing
RUN/summary.json      written last: a run that has one is finished
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import torch

from aupipe import facs
from aupipe.data import splits
from aupipe.data.sampler import Task
from aupipe.errors import ConfigError
from aupipe.evaluation import calibration, decision, report
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.predict import member, predict
from aupipe.pipelines.session import session
from aupipe.pipelines.train_stage import (
    History,
    TrainJob,
    best,
    check_workers,
    cross_validate,
    embeddings,
    history,
    init_videos,
    run_stage,
)
from aupipe.run_lease import run_lease
from aupipe.storage import Storage
from aupipe.training import pretrained, run_dir, task_data, trainer
from aupipe.training.learner import build_learner
from aupipe.training.recipe import FROM_STAGE
from aupipe.training.task_data import TaskData

logger = logging.getLogger(__name__)

# What differs from Ray's defaults; a variable that is set already is left as it is.
RAY_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # not 2: a report younger than one poll is lost if a worker dies
    # Not 60: after a node is lost, the first attempt to start again may wait for so long in vain.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",  # not 5: some notices come only seconds ahead
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a recipe's relative paths mean the same on the workers
}


def describe(job: TrainJob) -> str:
    """The plan of a run, and what of it is done. Starts nothing.

    Raises:
        ConfigError: something is wrong with the recipe, the store, or the weights to start from.
    """
    index = FaceStore.open(job.store)
    lines = [f"recipe {job.recipe.name}, store {job.store} ({index.card.source}), run {job.out}"]
    earlier: dict[str, set[str]] = {}  # stage → names of its tensors
    seen: set[tuple[str, str]] = set()  # (store, video) that any stage so far has learnt from
    for name in job.recipe.needed():
        stage, setting = job.recipe.stages[name], f"stages.{name}.init"
        data = task_data.task_data(job.recipe, name, index, job.split)
        with torch.device("meta"):
            learner, _ = build_learner(job.recipe, name, data, None)
        earlier[name] = {key.partition(".")[2] for key in learner.state_dict() if not key.startswith("loss.")}
        if stage.init.startswith(FROM_STAGE):
            given = earlier[stage.init.removeprefix(FROM_STAGE)]
            own = {key for key in learner.state_dict() if key.partition(".")[2] in given}
            pretrained.check_learnt(learner, own, setting=setting)
        else:
            pretrained.check(stage.init, setting=setting, system=learner.system)
            if stage.init == "random":
                pretrained.check_learnt(learner, set(), setting=setting)
        check_workers(job, name)
        steps = {task: trainer.steps_of(each.train, stage.tasks.named[task].data, stage) for task, each in data.items()}
        seen |= init_videos(job, name) if not stage.init.startswith(FROM_STAGE) else set()
        seen |= {(each.index.storage.root, video) for each in data.values() for video in each.train.videos}
        _check_unseen(data, seen, setting)
        sizes = [(p.numel(), p.requires_grad) for p in learner.parameters()]
        lines.append(
            f"stage {name}: {sum(n for n, _ in sizes):,} parameters, {sum(n for n, on in sizes if on):,} trainable, "
            f"from {stage.init}; {stage.epochs} epochs of batches of {stage.batch}"
            + (f", encoded once ({stage.encode_once.copies} augmented copies)" if stage.encode_once else "")
            + (f", {stage.cross_validate} folds of people first" if stage.cross_validate else "")
            + (" (done)" if history(job, name) is not None else "")
        )
        for task, each in data.items():
            scored = f", scored on {len(each.eval.frames):,}" if each.eval else ""
            lines.append(
                f"  {task}: {len(each.train.frames):,} crops of {len(each.train.videos)} videos "
                f"({len(each.train.held_out_videos)} more held out), {steps[task]} steps an epoch{scored}"
            )
    return "\n".join(lines)


def _check_unseen(data: Mapping[Task, TaskData], seen: set[tuple[str, str]], setting: str) -> None:
    """Refuse to score, and choose by, videos that the weights have been taught with."""
    for each in data.values():
        scored = {(each.index.storage.root, video) for video in each.eval.videos} if each.eval else set()
        if both := sorted(scored & seen):
            raise ConfigError(
                f"{setting}: {len(both)} of the videos to be scored were learnt from before, as {both[0][1]}; "
                "start from weights that have not seen them, or take another --split"
            )


def is_finished(job: TrainJob) -> bool:
    return run_dir.summary(Storage(job.out)) is not None


def train(job: TrainJob) -> dict[str, Any]:
    """Run the stages that the recipe's last one builds on and leave RUN/best. Returns the summary.

    Raises:
        ConfigError: as `describe`, or RUN holds another run.
        AupipeError: training failed.
    """
    folder = Storage(job.out)
    index = FaceStore.open(job.store)
    wanted = run_dir.identity(job.recipe, index, job.split)
    if (done := run_dir.summary(folder)) is not None:
        run_dir.begin(folder, wanted)
        return done
    logger.info("%s", describe(job))
    run_dir.begin(folder, wanted)
    configure_ray()
    with run_lease(folder), session(log_to_driver=False):
        check_visible_on_all_nodes(job.out, [job.store, embeddings(job)])
        return _finish(job, index, job.recipe.needed()[-1], run_stages(job))


def configure_ray() -> None:
    """Set what differs from Ray's defaults, before a session."""
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)


def run_stages(job: TrainJob) -> History:
    """Train the stages that the recipe's last one builds on, or the rest of them; the figures of all epochs. Runs
    inside a session.
    """
    figures: History = []
    for name in job.recipe.needed():
        figures = cross_validate(job, name, figures)
        figures = run_stage(job, name, figures)
    return figures


def _finish(job: TrainJob, index: FaceStore, name: str, figures: History) -> dict[str, Any]:
    """Fit thresholds and smoothing to the last stage if it judges AUs, write RUN/best, score it, write the summary."""
    folder = Storage(job.out)
    system, card = checkpoint.load(folder.path(best(name)))
    result: dict[str, Any] = {}
    if job.recipe.stages[name].tasks.au is not None:
        card, result = _calibrated(job, index, name, card)
    card = checkpoint.save(Storage(folder.path(run_dir.BEST)), system, card, half=job.recipe.half)
    summary = {
        "recipe": job.recipe.name,
        "stages": {stage: _best_epoch(figures, stage) for stage in job.recipe.needed()},
        "cross_validation": _folds(job, figures),
        **result,
        "model_sha256": card.sha256,
        "train_s": round(sum(line["train_s"] for line in figures), 1),
        "command": job.command,
    }
    folder.write(run_dir.SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _calibrated(
    job: TrainJob, index: FaceStore, name: str, card: checkpoint.Card
) -> tuple[checkpoint.Card, dict[str, Any]]:
    """The card with thresholds and smoothing fitted on held-out videos, and the scores with them."""
    path = Storage(job.out).path(best(name))
    data = task_data.task_data(job.recipe, name, index, job.split)["au"]
    index, scored = data.index, splits.eval_part(data.index, job.split)
    unseen = frozenset(data.train.held_out_videos) - set(card.training.videos)
    apart = splits.SplitPart(data.train.tracks.split, unseen)
    if data.train.held_out_videos and not unseen:
        logger.warning("the held-out videos were learnt from in an earlier stage: thresholds stay 0.5")
    parts = (apart, scored) if apart.videos else (scored,)
    found = predict([path], index, parts, job.recipe.inference, job.recipe.resources, embeddings(job))
    if apart.videos:
        fitted = calibration.calibrate(found[apart][0])
        card = card.model_copy(
            update={
                "thresholds": dict(zip(facs.AUS, fitted.thresholds.tolist(), strict=True)),
                "smoothing": checkpoint.Smoothing(radius=fitted.radius),
                "training": card.training.model_copy(update={"thresholds_from": "held-out train videos"}),
            }
        )
    result = report.report(decision.decide([member(card, found[scored][0])], "mean"))
    return card, {
        "macro_f1": result["macro_f1"],
        "macro_f1_by_step": {step: values["macro_f1"] for step, values in result["stages"].items()},
        "floor": result["floor"],
        "epoch_chosen_on": "the scored videos, by F1 at 0.5",
        "ci95": result["ci95"],
        "expression": result["expression"],
    }


def _best_epoch(figures: History, stage: str) -> dict[str, Any]:
    """The figures of a stage's best epoch, and how many there were."""
    lines = [line for line in figures if line["stage"] == stage]
    chosen = max(lines, key=lambda line: (line["score"], line["epoch"]))  # of equals Ray Train keeps the later
    unsaid = ("stage", "workers", "train_s", "validation_s")
    return {"epochs": len(lines)} | {key: value for key, value in chosen.items() if key not in unsaid}


def _folds(job: TrainJob, figures: History) -> dict[str, Any]:
    """Stage → accuracy on the people left out, of the last epoch of every fold: nothing was chosen on them."""
    result: dict[str, Any] = {}
    for name in job.recipe.needed():
        last = {line["stage"]: line for line in figures if line["stage"].startswith(f"{name}-people-")}
        if last:
            accuracies = [line["expr_accuracy"] for line in last.values()]
            result[name] = {
                "accuracies": accuracies,
                "mean": sum(accuracies) / len(accuracies),
                "majority": [line["expr_majority"] for line in last.values()],
            }
    return result
