"""Training as a Ray Train job: one run a stage, a checkpoint an epoch; the same command goes on where it stopped.

RUN/run.json          what the run was started with
RUN/stages/NAME/      Ray Train's own folder of a stage, its newest and best states; `best/` once the stage is done
RUN/metrics.jsonl     one line an epoch;  RUN/tensorboard/NAME/
RUN/best/             the checkpoint, with thresholds and smoothing
RUN/summary.json      written last: a run that has one is finished
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from aupipe import facs
from aupipe.errors import AupipeError, ConfigError
from aupipe.facestore.read import StoreIndex
from aupipe.learning import calibration, engine, ensemble, initialise, optim, run, sampling, scores, splits, state
from aupipe.learning.recipe import Recipe
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.pipelines.claim import claim
from aupipe.pipelines.predict import member, predict
from aupipe.pipelines.session import gpus_per_worker, session
from aupipe.pipelines.train_worker import run_epochs, shown_epochs
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

MAX_WORKER_FAILURES = 3
MAX_CPU_WORKERS = 4  # by default: beyond that, shares of a batch get small


@dataclass(frozen=True)
class TrainJob:
    recipe: Recipe
    store: str
    out: str
    workers: int | None = None  # None: one a GPU, else one a CPU up to MAX_CPU_WORKERS
    split: str = splits.OFFICIAL  # or fold:K
    command: str = ""


def describe(job: TrainJob) -> str:
    """The plan of a run, and what of it is done. Starts nothing.

    Raises:
        ConfigError: something is wrong with the recipe, the store, or the weights to start from.
    """
    index = StoreIndex.open(job.store)
    folder = Storage(job.out)
    lines = [f"recipe {job.recipe.name}, store {job.store} ({index.card.source}), run {job.out}"]
    for name, stage in job.recipe.stages.items():
        _check_init(job, name)
        system = build(job.recipe.model, job.recipe.input)
        optim.build(system, stage.optimiser)
        sizes = [(p.numel(), p.requires_grad) for p in system.parameters()]
        selection = engine.training_rows(index, stage.data, job.split)
        steps = sampling.steps(len(selection.rows), stage.batch)
        if not steps:
            raise ConfigError(
                f"stages.{name}.batch={stage.batch} is more than the {len(selection.rows)} rows there are"
            )
        lines.append(
            f"stage {name}: {sum(n for n, _ in sizes):,} parameters, {sum(n for n, on in sizes if on):,} trainable, "
            f"from {stage.init}; {len(selection.rows):,} crops of {len(selection.videos)} videos "
            f"({len(selection.held_out_videos)} more held out), {stage.epochs} epochs of {steps} steps of {stage.batch}"
            + (" (done)" if folder.exists(f"{_best(name)}/{checkpoint.CARD}") else "")
        )
    lines.append(f"validation: {len(engine.labelled_rows(index, job.split).rows):,} crops")
    return "\n".join(lines)


def is_finished(job: TrainJob) -> bool:
    return run.summary(Storage(job.out)) is not None


def train(job: TrainJob) -> dict[str, Any]:
    """Run the recipe's stages and leave RUN/best. Returns the summary; of a finished run, the one it has.

    Raises:
        ConfigError: as `describe`, or RUN holds another run.
        AupipeError: training failed.
    """
    folder = Storage(job.out)
    index = StoreIndex.open(job.store)
    wanted = run.identity(job.recipe, index, job.split)
    if (done := run.summary(folder)) is not None:
        run.begin(folder, wanted)
        return done
    logger.info("%s", describe(job))
    run.begin(folder, wanted)
    # A report that is younger than one poll is lost if a worker dies; Ray's default is 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # a recipe's relative paths mean the same on the workers
    history: list[dict[str, Any]] = []
    with claim(folder), session(log_to_driver=False):
        for name in job.recipe.stages:
            if not folder.exists(f"{_best(name)}/{checkpoint.CARD}"):
                _run_stage(job, index, name, history)
            history = json.loads(folder.read(f"stages/{name}/history.json"))
        return _finish(job, index, name, history)


def _run_stage(job: TrainJob, index: StoreIndex, name: str, earlier: list[dict[str, Any]]) -> None:
    """Train one stage, or the rest of it, and write its best state as a checkpoint."""
    gpus = gpus_per_worker(job.recipe.resources)
    workers = _workers(job, name, bool(gpus))
    folder = Storage(job.out)
    trainer = ray.train.torch.TorchTrainer(
        run_epochs,
        train_loop_config={
            "recipe": job.recipe.model_dump(mode="json"),
            "stage": name,
            "init": _resolved_init(job, name),
            "store": index.storage.root,
            "split": job.split,
            "out": folder.root,
            "earlier": earlier,
        },
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=bool(gpus)),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=600),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder.path("stages"),
            failure_config=ray.train.FailureConfig(max_failures=MAX_WORKER_FAILURES),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="macro_f1", checkpoint_score_order="max"
            ),  # the best, and always the newest
        ),
    )
    try:
        with shown_epochs(folder, job.recipe.stages[name].epochs):
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error
    best, figures = max(result.best_checkpoints, key=lambda pair: pair[1]["macro_f1"])
    logger.info(
        "stage %s: best epoch %d, validation macro F1 %.3f at 0.5", name, figures["epoch"] + 1, figures["macro_f1"]
    )
    system = build(job.recipe.model, job.recipe.input)
    with result.checkpoint.as_directory() as local:  # the newest
        history = earlier + state.read_position(Path(local)).history
    folder.write(f"stages/{name}/history.json", json.dumps(history).encode())
    with best.as_directory() as local:
        state.load_weights(Path(local), system)
    selection = engine.training_rows(index, job.recipe.stages[name].data, job.split)
    card = checkpoint.Card(
        model=job.recipe.model,
        input=job.recipe.input,
        template=index.card.template,
        training=checkpoint.TrainingCard(
            recipe=job.recipe.name,
            data=job.store,
            source=index.card.source,
            licence=index.card.licence,
            seed=job.recipe.seed,
            split=job.split,
            videos=selection.videos,
            held_out_videos=selection.held_out_videos,
            command=job.command,
        ),
    )
    checkpoint.save(Storage(folder.path(_best(name))), system, card)


def _finish(job: TrainJob, index: StoreIndex, name: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit thresholds and smoothing to the last stage, write RUN/best, score it, write the summary."""
    folder = Storage(job.out)
    system, card = checkpoint.load(folder.path(_best(name)))
    scored = splits.to_score(index, job.split)
    apart = splits.Part(splits.to_learn(index, job.split).pool, frozenset(card.training.held_out_videos))
    parts = (apart, scored) if apart.videos else (scored,)
    found = predict([folder.path(_best(name))], index, parts, job.recipe.resources)
    if apart.videos:
        fitted = calibration.calibrate(found[apart][0])
        card = card.model_copy(
            update={
                "thresholds": dict(zip(facs.AUS, fitted.thresholds.tolist(), strict=True)),
                "smoothing": checkpoint.Smoothing(radius=fitted.radius),
                "training": card.training.model_copy(update={"thresholds_from": "held-out train videos"}),
            }
        )
    card = checkpoint.save(Storage(folder.path(run.BEST)), system, card)
    result = scores.report(ensemble.decide([member(card, found[scored][0])], "mean"))
    summary = {
        "recipe": job.recipe.name,
        "stages": {stage: sum(line["stage"] == stage for line in history) for stage in job.recipe.stages},
        "macro_f1": result["macro_f1"],
        "macro_f1_by_step": {step: figures["macro_f1"] for step, figures in result["stages"].items()},
        "floor": result["floor"],
        "ci95": result["ci95"],
        "model_sha256": card.sha256,
        "train_s": round(sum(line["train_s"] for line in history), 1),
        "command": job.command,
    }
    folder.write(run.SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _best(stage: str) -> str:
    return f"stages/{stage}/best"


def _resolved_init(job: TrainJob, name: str) -> str:
    """`stage:NAME` stands for the result of an earlier stage of this run."""
    init = job.recipe.stages[name].init
    return Storage(job.out).path(_best(init.removeprefix("stage:"))) if init.startswith("stage:") else init


def _check_init(job: TrainJob, name: str) -> None:
    init, setting = job.recipe.stages[name].init, f"stages.{name}.init"
    if init.startswith("stage:"):
        before = list(job.recipe.stages)[: list(job.recipe.stages).index(name)]
        if init.removeprefix("stage:") not in before:
            raise ConfigError(f"{setting}: {init} names no earlier stage ({', '.join(before) or 'there is none'})")
    else:
        initialise.check(init, setting=setting, backbone=job.recipe.model.backbone)


def _workers(job: TrainJob, name: str, gpu: bool) -> int:
    batch = job.recipe.stages[name].batch
    if job.workers is None:
        slots = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
        most = slots if gpu else min(slots, MAX_CPU_WORKERS)
        return max(n for n in range(1, max(most, 1) + 1) if batch % n == 0)
    if batch % job.workers:
        raise ConfigError(f"--workers {job.workers} cannot share a batch of {batch} evenly; set stages.{name}.batch")
    return job.workers


def _cause(error: ray.train.TrainingFailedError) -> AupipeError:
    """Our own error of a worker if there is one, else one that quotes the first."""
    failures = list(getattr(error, "worker_failures", {}).values())
    own = [failure for failure in failures if isinstance(failure, AupipeError)]
    if own:
        return own[0]
    first = failures[0] if failures else error
    return AupipeError(f"training failed after {MAX_WORKER_FAILURES} restarts: {type(first).__name__}: {first}")
