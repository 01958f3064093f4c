"""Training as Ray Train jobs: one run per stage, one checkpoint per epoch. Re-run the same command to resume.

RUN/run.json          recipe, store and split that the run was started with
RUN/stages/NAME/      Ray Train's folder of a stage; NAME-people-K is a fold of its cross-validation
RUN/embeddings/       embeddings of stages that encode once, unless the setting `embeddings` names another folder
RUN/metrics.jsonl     one line per epoch;  RUN/tensorboard/NAME/
RUN/best/             the checkpoint, with thresholds and smoothing
RUN/curves.png        loss and validation scores by epoch
RUN/summary.json      written last, so a run with a summary is finished
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aupipe import facs
from aupipe.affwild2.job import is_official
from aupipe.data import splits
from aupipe.data.sampler import Task
from aupipe.errors import ConfigError, DatasetError
from aupipe.evaluation import calibration, decision, report
from aupipe.evaluation.plot import learning_curves
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.pipelines import ray_internals
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.predict import check_audio, member, predict
from aupipe.pipelines.session import session
from aupipe.pipelines.train_stage import (
    History,
    TrainJob,
    best,
    check_workers,
    cross_validate,
    embeddings,
    history,
    inference_resources,
    init_videos,
    initial_card,
    people_splits,
    run_stage,
)
from aupipe.run_lease import run_lease
from aupipe.storage import Storage
from aupipe.training import pretrained, run_dir, task_data, task_loader
from aupipe.training.learner import Learner, build_learner
from aupipe.training.recipe import FROM_STAGE, Recipe, Stage
from aupipe.training.task_data import TaskData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagePlan:
    """A stage that can be trained.

    Attributes:
        steps: optimizer steps of an epoch by task.
        parameters: number of parameters, and of those that are trained.
        done: whether it is complete.
    """

    name: str
    stage: Stage
    data: Mapping[Task, TaskData]
    steps: Mapping[Task, int]
    parameters: tuple[int, int]
    done: bool


@dataclass(frozen=True)
class TrainPlan:
    """The stages of a run that can be trained."""

    job: TrainJob
    source: str  # of the store
    stages: Sequence[StagePlan]


def check(job: TrainJob) -> TrainPlan:
    """Check what a run needs, and return its plan. Starts nothing.

    Raises:
        ConfigError: the recipe, the store, or the initial weights are invalid, or RUN contains another run.
    """
    run_dir.check(Storage(job.out), run_dir.identity(job.recipe, FaceStore.open(job.store), job.split))
    return plan(job)


def plan(job: TrainJob) -> TrainPlan:
    """Return the plan of a run, whatever its folder contains.

    Raises:
        ConfigError: the recipe, the store, or the initial weights are invalid.
    """
    index = FaceStore.open(job.store)
    stages: list[StagePlan] = []
    tensors: dict[str, set[str]] = {}  # stage → names of its tensors
    seen: set[tuple[str, str]] = set()  # (store, video) of the training videos of all stages so far
    for name in job.recipe.needed():
        stage, setting = job.recipe.stages[name], f"stages.{name}.init"
        _check_clips(job.recipe, name)
        data = task_data.task_data(job.recipe, name, index, job.split)
        if "au" in data and (absent := data["au"].train.positive_rates == 0).any():
            aus = ", ".join(np.array(facs.AUS)[absent])
            logger.warning("stage %s: no training row is positive for %s, so the model cannot find them", name, aus)
        for split in people_splits(job, name):
            task_data.task_data(job.recipe, name, index, split)
        with torch.device("meta"):
            learner, _ = build_learner(job.recipe, name, data, None)
        if learner.head.uses_audio:
            used = [(each.index, part.videos) for each in data.values() for part in (each.train, each.eval) if part]
            check_audio(f"stage {name}", used, required=True)
        tensors[name] = {key.partition(".")[2] for key in learner.state_dict() if not key.startswith("loss.")}
        if stage.init.startswith(FROM_STAGE):
            given = tensors[stage.init.removeprefix(FROM_STAGE)]
            own = {key for key in learner.state_dict() if key.partition(".")[2] in given}
            pretrained.check_frozen(learner, own, setting=setting)
        else:
            pretrained.check(stage.init, setting=setting, system=learner.system)
            if stage.init == "random":
                pretrained.check_frozen(learner, set(), setting=setting)
            _warn_of_other_inputs(job, name, learner)
        check_workers(job, name, learner)
        if name == job.recipe.needed()[-1] and "au" in data and data["au"].eval is None:
            raise DatasetError(
                f"{data['au'].index.storage.root} has no validation split to score AUs on; "
                "fix: give --split fold:0, or remake the store from a manifest with a column split"
            )
        steps = {task: task_loader.steps_of(each.train, task, stage) for task, each in data.items()}
        seen |= init_videos(job, name) if not stage.init.startswith(FROM_STAGE) else set()
        seen |= {(each.index.storage.root, video) for each in data.values() for video in each.train.videos}
        _check_unseen(data, seen, setting)
        sizes = [(p.numel(), p.requires_grad) for p in learner.parameters()]
        parameters = sum(n for n, _ in sizes), sum(n for n, on in sizes if on)
        stages.append(StagePlan(name, stage, data, steps, parameters, history(job, name) is not None))
    return TrainPlan(job, index.card.source, stages)


def text(plan: TrainPlan) -> str:
    """Return a plan for a terminal."""
    job = plan.job
    lines = [f"recipe {job.recipe.name}, store {job.store} ({plan.source}), run {job.out}"]
    for each in plan.stages:
        stage, (count, trained) = each.stage, each.parameters
        lines.append(
            f"stage {each.name}: {count:,} parameters, {trained:,} trainable, "
            f"from {stage.init}; {stage.epochs} epochs of batches of {stage.batch}"
            + (f", encoded once ({stage.encode_once.copies} augmented copies)" if stage.encode_once else "")
            + (f", {stage.cross_validate} folds of people first" if stage.cross_validate else "")
            + (" (done)" if each.done else "")
        )
        for task, data in each.data.items():
            scored = f", scored on {len(data.eval.frames):,}" if data.eval else ""
            lines.append(
                f"  {task}: {len(data.train.frames):,} crops of {len(data.train.videos)} videos "
                f"({len(data.train.held_out_videos)} more held out), {each.steps[task]} steps per epoch{scored}"
            )
    return "\n".join(lines)


def _check_clips(recipe: Recipe, stage: str) -> None:
    """Raise ConfigError if a model has positions that the clips of a stage never reach, so they would stay untrained.

    Scoring and annotation use windows of all positions. Longer clips get interpolated positions.
    """
    positions = getattr(recipe.model_of(stage), "clip_frames", 1)
    for name, task in recipe.stages[stage].tasks.named.items():
        if task.data.clip_frames < positions:
            key = f"stages.{stage}.tasks.{name}.data.clip_frames"
            raise ConfigError(
                f"{key}: {task.data.clip_frames} ({positions} or more, the model's clip_frames, because later "
                f"positions would stay untrained); fix: --set {key}={positions}, or give the model fewer"
            )


def _warn_of_other_inputs(job: TrainJob, stage: str, learner: Learner) -> None:
    """Log a warning if a frozen part of the encoder was trained on other inputs than it gets, to which it cannot adapt.

    `mirrored` is left out, because a network with it has learned from both images.
    """
    card = initial_card(job, stage)
    if card is None or all(parameter.requires_grad for parameter in learner.encoder.parameters()):
        return
    own, trained = (each.model_dump(mode="json", exclude={"mirrored"}) for each in (job.recipe.input, card.input))
    fix = [f"--set input.{k}={json.dumps(v, separators=(',', ':'))}" for k, v in trained.items() if own[k] != v]
    if fix:
        logger.warning(
            "stage %s: the frozen network of %s was trained on other inputs; fix: %s",
            stage, job.recipe.stages[stage].init, " ".join(fix),
        )  # fmt: skip


def _check_unseen(data: Mapping[Task, TaskData], seen: set[tuple[str, str]], setting: str) -> None:
    """Raise ConfigError if evaluation videos were training videos of the weights."""
    for each in data.values():
        scored = {(each.index.storage.root, video) for video in each.eval.videos} if each.eval else set()
        if both := sorted(scored & seen):
            raise ConfigError(
                f"{setting}: {len(both)} evaluation videos were training videos of these weights, as {both[0][1]}; "
                "fix: start from other weights, or give another --split"
            )


def is_finished(job: TrainJob) -> bool:
    """Return whether the run has its summary, which is written last."""
    return run_dir.summary(Storage(job.out)) is not None


def train(job: TrainJob) -> dict[str, Any]:
    """Run the recipe's last stage and the stages that it builds on, write RUN/best, and return the summary.

    Raises:
        ConfigError: as `check`.
        AupipeError: training failed.
    """
    folder = Storage(job.out)
    index = FaceStore.open(job.store)
    identity = run_dir.identity(job.recipe, index, job.split)
    if (done := run_dir.summary(folder)) is not None:
        run_dir.begin(folder, identity)
        return done
    logger.info("%s", text(plan(job)))
    run_dir.begin(folder, identity)
    ray_internals.configure_train()
    with run_lease(folder), session(job.recipe.resources, log_to_driver=False):
        check_visible_on_all_nodes(job.out, [job.store, embeddings(job)])
        return _finish(job, index, job.recipe.needed()[-1], run_stages(job))


def run_stages(job: TrainJob) -> History:
    """Train the recipe's last stage and the stages that it builds on, or resume them. Runs inside a session.

    Returns:
        The figures of all epochs.
    """
    figures: History = []
    for name in job.recipe.needed():
        figures = cross_validate(job, name, figures)
        figures = run_stage(job, name, figures)
    return figures


def _finish(job: TrainJob, index: FaceStore, name: str, figures: History) -> dict[str, Any]:
    """Fit thresholds and smoothing if the last stage predicts AUs, write RUN/best, score it, write the summary."""
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
    folder.write(run_dir.CURVES, learning_curves(figures, f"{job.recipe.name} on {job.store}"))
    folder.write(run_dir.SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _calibrated(
    job: TrainJob, index: FaceStore, name: str, card: checkpoint.Card
) -> tuple[checkpoint.Card, dict[str, Any]]:
    """Return the card with thresholds and smoothing fitted on held-out videos, and the scores with them."""
    path = Storage(job.out).path(best(name))
    data = task_data.task_data(job.recipe, name, index, job.split)["au"]
    index, scored = data.index, splits.eval_part(data.index, job.split, job.recipe.leak)
    unseen = frozenset(data.train.held_out_videos) - set(card.training.videos)
    held_out = splits.SplitPart(data.train.tracks.split, unseen)
    if data.train.held_out_videos and not unseen:
        logger.warning("the held-out videos are training videos of an earlier stage: thresholds stay 0.5")
    parts = (held_out, scored) if held_out.videos else (scored,)
    found = predict([path], index, parts, job.recipe.inference, inference_resources(job), embeddings(job), "train")
    if held_out.videos:
        radii = (0,) if index.card.separate_images else job.recipe.smoothing_radii
        fitted = calibration.calibrate(found[held_out][0], radii)
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
        "by_step": result["stages"],
        "compared_with_published": result["compared_with_published"],
        "aff_wild2": is_official(index.card),
        "split": "validation" if job.split == splits.OFFICIAL else job.split,
        "floor": result["floor"],
        "epoch_chosen_on": "the scored videos, by F1 at 0.5",
        "ci95": result["ci95"],
        "expression": result["expression"],
    }


def _best_epoch(figures: History, stage: str) -> dict[str, Any]:
    """Return the figures of a stage's best epoch, and the number of epochs."""
    lines = [line for line in figures if line["stage"] == stage]
    chosen = max(lines, key=lambda line: (line["score"], line["epoch"]))  # of equal scores Ray Train keeps the later
    left_out = ("stage", "workers", "train_s", "validation_s")
    return {"epochs": len(lines)} | {key: value for key, value in chosen.items() if key not in left_out}


def _folds(job: TrainJob, figures: History) -> dict[str, Any]:
    """Return stage → scores on the held-out people after the last epoch of every fold. Nothing is selected by them.

    A stage with expressions is compared by their accuracy, one of AUs alone by their macro F1.
    """
    result: dict[str, Any] = {}
    for name in job.recipe.needed():
        last = {line["stage"]: line for line in figures if line["stage"].startswith(f"{name}-people-")}
        if last:
            columns = {"macro_f1": "macro_f1", "floor": "floor"}
            if job.recipe.stages[name].tasks.expr is not None:
                columns = {"accuracies": "expr_accuracy", "majority": "expr_majority"}
            found = {key: [line[column] for line in last.values()] for key, column in columns.items()}
            scores, _ = found.values()
            result[name] = {**found, "mean": sum(scores) / len(scores)}
    return result
