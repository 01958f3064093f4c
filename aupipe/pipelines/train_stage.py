"""One stage as a Ray Train run: RUN/stages/NAME holds its newest and best states; once it is done, `best/` and
`history.json`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

from aupipe.data import splits
from aupipe.data.batches import EmbeddingFolders
from aupipe.data.sampler import Task
from aupipe.errors import AupipeError, ConfigError
from aupipe.facestore.read import FaceStore
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.checkpoint import TrainingCard
from aupipe.periodic import periodically
from aupipe.pipelines.encode import encode_stage
from aupipe.pipelines.session import gpus_per_worker, label_selector_for
from aupipe.pipelines.train_worker import shown_epochs, train_loop_per_worker
from aupipe.storage import Storage
from aupipe.training import state, task_data
from aupipe.training.learner import build_learner
from aupipe.training.pretrained import SUFFIXES, checkpoint_folder
from aupipe.training.recipe import FROM_STAGE, Recipe

logger = logging.getLogger(__name__)

MAX_WORKER_FAILURES = 3
MAX_CPU_WORKERS = 4  # by default: beyond that, shares of a batch get small
LOOK_S = 2.0  # between looks which nodes there are, where workers may come and go
RESIZE_S = 15.0  # between looks whether there is room for more workers; taking them on restarts the group

History = list[dict[str, Any]]


@dataclass(frozen=True)
class TrainJob:
    recipe: Recipe
    store: str
    out: str
    workers: int | tuple[int, int] | None = None  # or least and most; None: one a GPU, else one a CPU, at most 4
    split: str = splits.OFFICIAL  # or fold:K
    command: str = ""
    worker_cpus: float = 1  # that one asks Ray for, where models run on CPUs
    callbacks: tuple[ray.train.UserCallback, ...] = ()  # of Ray Train, told of the epochs of the last stage


def best(name: str) -> str:
    """The checkpoint of a stage, below the run's folder."""
    return f"stages/{name}/best"


def embeddings(job: TrainJob) -> str:
    """Where stages that encode once keep what they make."""
    return Storage(job.recipe.embeddings or f"{job.out}/embeddings").root


def history(job: TrainJob, name: str) -> History | None:
    """The figures of all epochs up to the end of a stage that is done; None of one that is not."""
    folder = Storage(job.out)
    done = folder.exists(f"stages/{name}/history.json")
    return json.loads(folder.read(f"stages/{name}/history.json")) if done else None


def run_stage(job: TrainJob, stage: str, earlier: History) -> History:
    """Train a stage, or the rest of it; returns the figures of all epochs so far, those of stages before included.

    Raises:
        AupipeError: training failed.
    """
    if (done := history(job, stage)) is None:
        done = _run(job, stage, stage, earlier)
    return done


def cross_validate(job: TrainJob, stage: str, earlier: History) -> History:
    """Train a stage once for every fold of people and score it on the people left out; figures as `run_stage`."""
    count = job.recipe.stages[stage].cross_validate
    if count is None or job.split != splits.OFFICIAL:
        return earlier
    for fold in range(count):
        name = f"{stage}-people-{fold}"
        if (done := history(job, name)) is None:
            done = _run(replace(job, split=splits.people(fold, count)), stage, name, earlier)
        earlier = done
    return earlier


def _run(job: TrainJob, stage: str, name: str, earlier: History) -> History:
    gpus = gpus_per_worker(job.recipe.resources)
    folder = Storage(job.out)
    workers = _workers(job, stage, bool(gpus))
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
            label_selector=label_selector_for("train", job.recipe.resources),
            elastic_resize_monitor_interval_s=RESIZE_S,
            resources_per_worker=None if gpus else {"CPU": job.worker_cpus},
        ),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=600),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder.path("stages"),
            failure_config=ray.train.FailureConfig(max_failures=MAX_WORKER_FAILURES),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),  # the best, and always the newest
            callbacks=list(job.callbacks) if stage == job.recipe.needed()[-1] else [],
        ),
    )
    try:
        with (
            shown_epochs(folder, job.recipe.stages[stage].epochs),
            _nodes_noticed(elastic=isinstance(workers, tuple)),
            _address_told(),
        ):
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error
    chosen, figures = max(result.best_checkpoints, key=lambda pair: pair[1]["score"])
    logger.info("stage %s: best epoch %d, validation score %.3f", name, figures["epoch"] + 1, figures["score"])
    with result.checkpoint.as_directory() as local:  # the newest
        done = earlier + state.read_position(Path(local)).history
    with chosen.as_directory() as local:
        _save(job, stage, name, Path(local))
    folder.write(f"stages/{name}/history.json", json.dumps(done).encode())
    _clear(folder, f"stages/{name}", keep=[Path(each.path).name for each in (result.checkpoint, chosen)])
    return done


@contextmanager
def _address_told() -> Iterator[None]:
    """Ray Train's actors are told which Ray is theirs. One of them watches over the run, to give back what a run held
    that was stopped; by itself it asks the newest Ray of the machine, and ends a run that this one does not know.
    """
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_ADDRESS"]
        else:
            os.environ["RAY_ADDRESS"] = before


@contextmanager
def _nodes_noticed(*, elastic: bool) -> Iterator[None]:
    """Ray Train counts on the nodes that Ray Data's coordinator knows of, which looks every 20 s: so long a group would
    start again in vain with workers of a node that is gone. Here it looks more often.
    """
    if not elastic:
        yield
        return
    coordinator = get_or_create_autoscaling_coordinator()
    with periodically(coordinator._tick.remote, LOOK_S):
        yield


def _clear(folder: Storage, states: str, keep: Sequence[str]) -> None:
    """Delete the states that a worker wrote just before it was killed: Ray Train does not know of them."""
    for file in folder.names(states):
        state_name = file.removeprefix(f"{states}/").partition("/")[0]
        if state_name.startswith("epoch-") and state_name not in keep:
            folder.delete(file)


def encoded(job: TrainJob, stage: str) -> dict[Task, EmbeddingFolders]:
    """Where the embeddings of a stage that encodes once lie, made as far as they were not there."""
    if job.recipe.stages[stage].encode_once is None:
        return {}
    data = task_data.task_data(job.recipe, stage, FaceStore.open(job.store), job.split)
    learner, _ = build_learner(job.recipe, stage, data, _resolved_init(job, stage))
    return encode_stage(job.recipe, stage, data, learner.encoder, embeddings(job))


def _save(job: TrainJob, stage: str, name: str, local: Path) -> None:
    """Write the stage's checkpoint from its best state."""
    index = FaceStore.open(job.store)
    model = job.recipe.model_of(stage)
    system = build(model, job.recipe.input)
    state.load_system(local, system)
    data = task_data.task_data(job.recipe, stage, index, job.split)
    before = _before(job, stage)
    apart = {video for task in data.values() for video in task.train.held_out_videos}
    seen = {video for task in data.values() for video in task.train.videos} | set(before.videos)
    stores = [index, *(store for task in data.values() for store in (task.index, *task.index.added))]
    licenses = dict.fromkeys([*(store.card.license for store in stores), before.license])
    card = checkpoint.Card(
        model=model,
        input=job.recipe.input,
        template=index.card.template,
        overlap=job.recipe.overlap,
        training=TrainingCard(
            recipe=job.recipe.name,
            stage=stage,
            data=job.store,
            source=index.card.source,
            license="; ".join(each for each in licenses if each),
            seed=job.recipe.seed,
            split=job.split,
            videos=tuple(sorted(seen)),
            held_out_videos=tuple(sorted((apart | set(before.held_out_videos)) - seen)),
            command=job.command,
            limits=job.recipe.limits,
        ),
    )
    checkpoint.save(Storage(Storage(job.out).path(best(name))), system, card)


def _before(job: TrainJob, stage: str) -> TrainingCard:
    """What the weights that the stage started from had been trained on, as far as their card says."""
    init = _resolved_init(job, stage)
    if init in ("random", "timm") or init.endswith(SUFFIXES):
        return TrainingCard()
    return checkpoint.load_card(checkpoint_folder(init)).training


def _resolved_init(job: TrainJob, stage: str) -> str:
    """`stage:NAME` stands for the result of an earlier stage of this run."""
    init = job.recipe.stages[stage].init
    return Storage(job.out).path(best(init.removeprefix(FROM_STAGE))) if init.startswith(FROM_STAGE) else init


def init_videos(job: TrainJob, stage: str) -> set[tuple[str, str]]:
    """(store, video) that the weights which a stage starts from have been taught with, as far as their card says."""
    before = _before(job, stage)
    return {(Storage(before.data).root, video) for video in before.videos}


def check_workers(job: TrainJob, stage: str) -> None:
    """Refuse more workers than can share the batch of a stage.

    Raises:
        ConfigError: naming the settings.
    """
    settings, workers = job.recipe.stages[stage], job.workers or 1
    most = workers if isinstance(workers, int) else workers[1]
    if most > settings.batch:
        raise ConfigError(f"--workers {most} cannot share a batch of {settings.batch}; set stages.{stage}.batch")
    if settings.accumulate > settings.batch // most:
        raise ConfigError(
            f"stages.{stage}.accumulate={settings.accumulate} is more than the {settings.batch // most} clips that "
            "a worker has of a batch"
        )


def _workers(job: TrainJob, stage: str, gpu: bool) -> int | tuple[int, int]:
    if job.workers is not None:
        return job.workers
    settings = job.recipe.stages[stage]
    slots = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
    return max(min(slots if gpu else min(slots, MAX_CPU_WORKERS), settings.batch // settings.accumulate), 1)


def _cause(error: ray.train.TrainingFailedError) -> AupipeError:
    """Our own error of a worker if there is one, else one that quotes the first."""
    failures = list(getattr(error, "worker_failures", {}).values())
    own = [failure for failure in failures if isinstance(failure, AupipeError)]
    if own:
        return own[0]
    first = failures[0] if failures else error
    return AupipeError(f"training failed after {MAX_WORKER_FAILURES} restarts: {type(first).__name__}: {first}")
