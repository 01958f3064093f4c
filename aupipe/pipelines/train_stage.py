"""One stage as a Ray Train run.

RUN/stages/NAME contains its newest and best states, and after its end `best/` and `history.json`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from aupipe import facs
from aupipe.config import Resources
from aupipe.data import splits
from aupipe.data.batches import EmbeddingFolders
from aupipe.data.sampler import Task
from aupipe.edge_errors import machine_fault
from aupipe.errors import AupipeError, ConfigError, one_line
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.checkpoint import TrainingCard
from aupipe.periodic import periodically
from aupipe.pipelines import ray_internals
from aupipe.pipelines.encode import encode_stage
from aupipe.pipelines.session import device_of, gpus_per_worker, label_selector_for, slots
from aupipe.pipelines.train_worker import log_epochs, train_loop_per_worker
from aupipe.storage import Storage
from aupipe.training import state, task_data
from aupipe.training.learner import Learner, build_learner, least_clips
from aupipe.training.pretrained import SUFFIXES, checkpoint_folder
from aupipe.training.recipe import FROM_STAGE, Recipe

logger = logging.getLogger(__name__)

MAX_WORKER_FAILURES = 3
MAX_CPU_WORKERS = 4  # the default; with more, shares of a batch get small
NODE_POLL_S = 2.0  # between updates of the list of nodes, if the number of workers may change
RESIZE_S = 15.0  # between checks for room for more workers; adding them restarts the group

History = list[dict[str, Any]]


@dataclass(frozen=True)
class TrainJob:
    recipe: Recipe
    store: str
    out: str
    workers: int | tuple[int, int] | None = None  # or minimum, maximum; None: one per GPU, else per CPU up to 4
    split: str = splits.OFFICIAL  # or fold:K
    command: str = ""
    worker_cpus: float = 1  # CPUs that one worker requests from Ray if models run on CPUs
    callbacks: tuple[ray.train.UserCallback, ...] = ()  # of Ray Train, called with the epochs of the last stage


def best(name: str) -> str:
    """Return the path of a stage's checkpoint below the run directory."""
    return f"stages/{name}/best"


def embeddings(job: TrainJob) -> str:
    """Return the folder or URI of the embeddings of stages that encode once."""
    return Storage(job.recipe.embeddings or f"{job.out}/embeddings").root


def history(job: TrainJob, name: str) -> History | None:
    """Return the figures of all epochs up to the end of a completed stage; None if it is not complete."""
    folder = Storage(job.out)
    done = folder.exists(f"stages/{name}/history.json")
    return json.loads(folder.read(f"stages/{name}/history.json")) if done else None


def run_stage(job: TrainJob, stage: str, earlier: History) -> History:
    """Train a stage, or resume it. Return the figures of all epochs so far, including earlier stages.

    Raises:
        AupipeError: training failed.
    """
    if (done := history(job, stage)) is None:
        done = _run(job, stage, stage, earlier)
    return done


def cross_validate(job: TrainJob, stage: str, earlier: History) -> History:
    """Train a stage once per fold of people, score it on the held-out people, and return the figures as `run_stage`."""
    for fold, split in enumerate(people_splits(job, stage)):
        name = f"{stage}-people-{fold}"
        if (done := history(job, name)) is None:
            done = _run(replace(job, split=split), stage, name, earlier)
        earlier = done
    return earlier


def people_splits(job: TrainJob, stage: str) -> list[str]:
    """Return the splits of a stage's cross-validation; none in a run on another split."""
    count = job.recipe.stages[stage].cross_validate or 0
    return [splits.people(fold, count) for fold in range(count)] if job.split == splits.OFFICIAL else []


def _run(job: TrainJob, stage: str, name: str, earlier: History) -> History:
    resources = job.recipe.resources
    gpus = gpus_per_worker(resources)
    folder = Storage(job.out)
    path, filesystem = folder.arrow_place("stages")
    workers = _workers(job, stage, bool(gpus))
    backend = "gloo" if device_of(resources) == "cpu" else "nccl"
    trainer = ray.train.torch.TorchTrainer(
        train_loop_per_worker,
        train_loop_config={
            "recipe": job.recipe.model_dump(mode="json"),
            "stage": stage,
            "name": name,
            "init": _resolved_init(job, stage),
            "store": job.store,
            "split": job.split,
            "out": folder.root,
            "earlier": earlier,
            "embeddings": encoded(job, stage),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=bool(gpus),
            label_selector=label_selector_for("train", resources),
            elastic_resize_monitor_interval_s=RESIZE_S,
            resources_per_worker=None if gpus else {"CPU": job.worker_cpus},
        ),
        torch_config=ray.train.torch.TorchConfig(backend=backend, timeout_s=600),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=MAX_WORKER_FAILURES),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),  # the best; Ray Train keeps the newest as well
            callbacks=list(job.callbacks) if stage == job.recipe.needed()[-1] else [],
        ),
    )
    try:
        with (
            log_epochs(folder, job.recipe.stages[stage].epochs),
            _node_list_updates(elastic=isinstance(workers, tuple)),
            ray_internals.train_actors_use_this_cluster(),
            ray_internals.group_start_timeout(elastic=isinstance(workers, tuple)),
        ):
            result = fit(trainer, folder, name)
    except ray.train.TrainingFailedError as error:
        raise _first_error(error) from error
    chosen, figures = max(result.best_checkpoints, key=lambda pair: pair[1]["score"])
    logger.info("stage %s: best epoch %d, validation score %.3f", name, figures["epoch"] + 1, figures["score"])
    with result.checkpoint.as_directory() as local:  # the newest
        done = earlier + state.read_position(Path(local)).history
    with chosen.as_directory() as local:
        _save(job, stage, name, Path(local))
    folder.write(f"stages/{name}/history.json", json.dumps(done).encode())
    _clear(folder, f"stages/{name}", keep=[Path(each.path).name for each in (result.checkpoint, chosen)])
    return done


def fit(trainer: ray.train.torch.TorchTrainer, folder: Storage, name: str) -> ray.train.Result:
    """Run the trainer, again if it failed too often but has saved a new state since it started.

    Ray Train counts failures over a whole run, so one that is long enough would fail on spot nodes.

    Raises:
        ray.train.TrainingFailedError: training failed `MAX_WORKER_FAILURES` + 1 times after the same state.
    """
    while True:
        before = _newest_state(folder, name)
        try:
            return trainer.fit()
        except ray.train.TrainingFailedError as error:
            after = _newest_state(folder, name)
            if after == before:
                raise
            logger.warning("stage %s failed after a new state, %s; resuming: %s", name, after, one_line(error))


def _newest_state(folder: Storage, name: str) -> str:
    states = {file.removeprefix(f"stages/{name}/").partition("/")[0] for file in folder.names(f"stages/{name}")}
    return max((state for state in states if state.startswith("epoch-")), default="")


@contextmanager
def _node_list_updates(*, elastic: bool) -> Iterator[None]:
    """Update the nodes that Ray Train schedules on every 2 s, if the number of workers may change."""
    if not elastic:
        yield
        return
    with periodically(ray_internals.update_node_list(), NODE_POLL_S):
        yield


def _clear(folder: Storage, states: str, keep: Sequence[str]) -> None:
    """Delete states that a worker wrote just before it was killed, because Ray Train has no record of them."""
    for file in folder.names(states):
        state_name = file.removeprefix(f"{states}/").partition("/")[0]
        if state_name.startswith("epoch-") and state_name not in keep:
            folder.delete(file)


def encoded(job: TrainJob, stage: str) -> dict[Task, EmbeddingFolders]:
    """Return the folders of the embeddings of a stage that encodes once, after computing those that are missing."""
    if job.recipe.stages[stage].encode_once is None:
        return {}
    data = task_data.task_data(job.recipe, stage, FaceStore.open(job.store), job.split)
    learner, _ = build_learner(job.recipe, stage, data, _resolved_init(job, stage))
    recipe = job.recipe.model_copy(update={"resources": inference_resources(job)})
    return encode_stage(recipe, stage, data, learner.encoder, embeddings(job))


def inference_resources(job: TrainJob) -> Resources:
    """Return the resources for models that a run applies to a store: as many workers as train, more if they fit now.

    All work of a run is placed in the pool `train`, because its nodes are there already and the file of a training
    cluster may have no other.
    """
    workers = job.workers[1] if isinstance(job.workers, tuple) else job.workers or 1
    resources = job.recipe.resources
    return resources if resources.workers else resources.model_copy(update={"workers": max(workers, slots(resources))})


def _save(job: TrainJob, stage: str, name: str, local: Path) -> None:
    """Write the stage's checkpoint from its best state."""
    index = FaceStore.open(job.store)
    model = job.recipe.model_of(stage)
    system = build(model, job.recipe.input)
    state.load_system(local, system)
    data = task_data.task_data(job.recipe, stage, index, job.split)
    before = initial_card(job, stage)
    initial = before.training if before else TrainingCard()
    held_out = {video for task in data.values() for video in task.train.held_out_videos}
    seen = {video for task in data.values() for video in task.train.videos} | set(initial.videos)
    stores = [index, *(store for task in data.values() for store in (task.index, *task.index.added))]
    licenses = dict.fromkeys([*(store.card.license for store in stores), initial.license])
    card = checkpoint.Card(
        model=model,
        input=job.recipe.input,
        template=index.card.template,
        overlap=job.recipe.overlap,
        expressions=task_data.expression_names(data, before.expressions if before else facs.EXPRESSIONS),
        training=TrainingCard(
            recipe=job.recipe.name,
            stage=stage,
            data=job.store,
            source=index.card.source,
            license="; ".join(each for each in licenses if each),
            seed=job.recipe.seed,
            split=job.split,
            leak=job.recipe.leak,
            videos=tuple(sorted(seen)),
            held_out_videos=tuple(sorted((held_out | set(initial.held_out_videos)) - seen)),
            command=job.command,
            limits=job.recipe.limits,
        ),
    )
    checkpoint.save(Storage(Storage(job.out).path(best(name))), system, card)


def initial_card(job: TrainJob, stage: str) -> checkpoint.Card | None:
    """Return the card of the weights that the stage starts from; None if they have none."""
    init = _resolved_init(job, stage)
    if init in ("random", "timm") or init.endswith(SUFFIXES):
        return None
    return checkpoint.load_card(checkpoint_folder(init))


def _resolved_init(job: TrainJob, stage: str) -> str:
    """Return the initial weights; `stage:NAME` becomes the checkpoint of an earlier stage of this run."""
    init = job.recipe.stages[stage].init
    return Storage(job.out).path(best(init.removeprefix(FROM_STAGE))) if init.startswith(FROM_STAGE) else init


def init_videos(job: TrainJob, stage: str) -> set[tuple[str, str]]:
    """Return (store, video) of the training videos of a stage's initial weights, as listed in their card."""
    card = initial_card(job, stage)
    return {(Storage(card.training.data).root, video) for video in card.training.videos} if card else set()


def check_workers(job: TrainJob, stage: str, learner: Learner) -> None:
    """Check that the workers can share the batch of a stage.

    Args:
        learner: that of the stage; its weights may be lost.

    Raises:
        ConfigError: there are too many workers for the batch; the message names the settings.
    """
    settings, workers = job.recipe.stages[stage], job.workers or 1
    most = workers if isinstance(workers, int) else workers[1]
    if most > settings.batch:
        raise ConfigError(f"--workers {most} cannot share a batch of {settings.batch}; fix: set stages.{stage}.batch")
    if settings.accumulate > settings.batch // most:
        raise ConfigError(
            f"stages.{stage}.accumulate={settings.accumulate} is more than the {settings.batch // most} clips of "
            "each worker in a batch"
        )
    parts = most * settings.accumulate
    if settings.batch < 2 * parts and (least := least_clips(learner, job.recipe, stage)) > 1:
        raise ConfigError(
            f"stages.{stage}.batch={settings.batch} leaves one clip to a worker and accumulation step, and batch norm "
            f"needs two; fix: --set stages.{stage}.batch={least * parts} (at least {least} per worker and accumulation "
            "step)"
        )


def _workers(job: TrainJob, stage: str, gpu: bool) -> int | tuple[int, int]:
    if job.workers is not None:
        return job.workers
    settings = job.recipe.stages[stage]
    room, clips = slots(job.recipe.resources), settings.batch // settings.accumulate
    room = room if gpu else min(room, MAX_CPU_WORKERS)
    if clips < 2 * room:
        data = task_data.task_data(job.recipe, stage, FaceStore.open(job.store), job.split)
        with torch.device("meta"):
            learner, _ = build_learner(job.recipe, stage, data, None)
        clips //= least_clips(learner, job.recipe, stage)
    return max(min(room, clips), 1)


def _first_error(error: ray.train.TrainingFailedError) -> AupipeError:
    """Return aupipe's own error of a worker if there is one; otherwise one that names or quotes the first."""
    failures = list(getattr(error, "worker_failures", {}).values())
    own = [failure for failure in failures if isinstance(failure, AupipeError)]
    if own:
        return own[0]
    first = failures[0] if failures else error
    return machine_fault(first) or AupipeError(
        f"training failed after {MAX_WORKER_FAILURES} restarts: {type(first).__name__}: {first}"
    )
