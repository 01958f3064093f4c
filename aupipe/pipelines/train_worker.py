"""The training loop of every Ray Train worker, and the log of its epochs on the driver."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train
import ray.train.torch

from aupipe.facestore.read import FaceStore
from aupipe.periodic import periodically
from aupipe.storage import Storage
from aupipe.training import run_dir, state, task_data
from aupipe.training import trainer as engine
from aupipe.training.learner import build_learner
from aupipe.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_NOTICE_POLL_S = 1.0  # between polls for a notice that a node will be taken away
_LEAVING_S = 10.0  # between saved states after such a notice
_UPLOAD_POLL_S = 0.05  # between looks whether the last state is uploaded, before the next is saved


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Run the steps of a stage that are left.

    Every epoch ends with a report to Ray Train, and `_SaveClock` adds reports within an epoch. Rank 0 attaches a state
    to each report.
    """
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    recipe, stage, name = Recipe.model_validate(config["recipe"]), config["stage"], config["name"]
    settings = recipe.stages[stage]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    reported = ray.train.get_checkpoint()
    folder = Storage(config["out"])
    data = task_data.task_data(recipe, stage, FaceStore.open(config["store"]), config["split"])
    # DDP copies the weights of rank 0 to all other ranks, so only rank 0 reads the initial weights.
    init = config["init"] if rank == 0 and not reported else None
    learner, optimizer = build_learner(recipe, stage, data, init)
    device = torch.device("cpu") if recipe.resources.device == "cpu" else ray.train.torch.get_device()
    # The model moves before the optimizer's state is restored, because the state goes to the device of the parameters.
    # Convolutions are faster in this memory format, on CPUs too.
    learner = learner.to(device).to(memory_format=torch.channels_last)
    position = state.Position()
    if reported:
        with reported.as_directory() as local:
            position = state.load(Path(local), learner, optimizer)
    # A step does not use the heads of other tasks, nor the audio branch if its clips have no soundtrack.
    unused = len(data) > 1 or learner.head.uses_audio
    ddp_options = engine.ddp_options(unused=unused, device=device, world=world)
    model = ray.train.torch.prepare_model(learner, move_to_device=device, parallel_strategy_kwargs=ddp_options)
    trainer = engine.Trainer(
        recipe=recipe, stage=stage, data=data, model=model, optimizer=optimizer, rank=rank, world=world, device=device,
        embeddings=config["embeddings"],
    )  # fmt: skip

    def report(figures: dict[str, Any], state_name: str) -> None:
        if rank != 0:
            ray.train.report(figures)
            return
        upload.wait()
        local = tempfile.mkdtemp()
        state.save(Path(local), learner, optimizer, position)
        upload.start(local, figures, state_name)

    upload = _Upload()
    clock = _SaveClock(recipe.save_every_s, device)
    for epoch in range(position.epochs, settings.epochs):
        if state.stalled(position, settings.patience):
            break
        start = time.monotonic() - position.train_s
        for step, total in trainer.train_steps(epoch, position.step, position.loss, clock.steps):
            spent = time.monotonic() - start
            position = state.Position(epoch, position.history, step, total, spent)
            if clock.is_due():
                report(_WITHIN_EPOCH, f"epoch-{epoch:04d}-step-{step:07d}")
        trained = time.monotonic()
        scores, loss = trainer.validate(), position.loss / trainer.steps_per_epoch
        figures = {
            "stage": name,
            "epoch": epoch,
            "loss": loss,
            "score": engine.score(scores, loss),
            **scores,
            "train_s": round(trained - start, 2),
            "validation_s": round(time.monotonic() - trained, 2),
            "trainable": sum(each.numel() for each in learner.parameters() if each.requires_grad),
            "peak_mb": round(trainer.peak_mb()),
            "workers": world,
        }
        position = state.Position(epoch + 1, [*position.history, figures])
        report(figures, f"epoch-{epoch:04d}")
        if rank == 0:
            run_dir.write_metrics(folder, config["earlier"] + position.history)
            run_dir.write_events(folder, name, figures)


# Ray Train keeps the state with the highest score and the newest. A state within an epoch is never the best.
_WITHIN_EPOCH = {"score": -sys.float_info.max}


class _Upload:
    """The upload of a state, beside the next steps. A run has at most one, so states do not fill the local disk.

    Ray Train ends the worker if an upload fails, and waits for the last one before the run ends. A state whose upload
    is cut off does not exist, so the run resumes from the one before, to the same result.
    """

    def __init__(self) -> None:
        self._local: Path | None = None

    def start(self, local: str, figures: dict[str, Any], state_name: str) -> None:
        """Start to upload the folder `local`, which is deleted afterwards."""
        self._local = Path(local)
        ray.train.report(
            figures, checkpoint=ray.train.Checkpoint.from_directory(local), checkpoint_dir_name=state_name,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC, delete_local_checkpoint_after_upload=True,
        )  # fmt: skip

    def wait(self) -> None:
        """Wait for the upload that was started last."""
        while self._local is not None and self._local.exists():
            time.sleep(_UPLOAD_POLL_S)


class _SaveClock:
    """The times at which all ranks save a state within an epoch.

    A state is due after a number of seconds on rank 0, and when a node of the run is about to be taken away. Ranks
    compare their clocks only about once a second, because that waits for the GPU and for all ranks.
    """

    def __init__(self, every_s: float, device: torch.device) -> None:
        self._every_s, self._device = every_s, device
        self._saved = self._polled = self._asked = time.monotonic()
        self._leaving_nodes: list[str] = []
        self._steps = 1

    def steps(self) -> int:
        """Return the number of steps up to the next call of `is_due`, the same on all ranks."""
        return self._steps

    def is_due(self) -> bool:
        """Return the same answer on all ranks: whether to save a state after this step."""
        now = time.monotonic()
        step_s = max(now - self._asked, 1e-6) / self._steps
        steps = max(min(int(min(_NOTICE_POLL_S, self._every_s) / step_s), 2 * self._steps), 1)
        polls, saves, self._steps = engine.broadcast_numbers(
            [now - self._polled >= _NOTICE_POLL_S, now - self._saved >= self._every_s, steps], self._device
        )
        if polls:
            self._polled = now
            notice = ray.train.get_preemption_info()  # waits for all ranks through an actor, so not at every step
            leaving = notice.preempted_node_ids if notice else []
            saves = saves or leaving != self._leaving_nodes
            if leaving:  # work since the last state is lost with the node
                self._every_s = min(self._every_s, _LEAVING_S)
            self._leaving_nodes = leaving
        if saves:
            self._saved = time.monotonic()
        self._asked = time.monotonic()
        return bool(saves)


@contextmanager
def log_epochs(folder: Storage, epochs: int) -> Iterator[None]:
    """Log every new line of metrics.jsonl while the block runs, instead of the logs of Ray Train's actors."""
    lines = len(_read_metrics(folder))

    def log_new_epochs() -> None:
        nonlocal lines
        history = _read_metrics(folder)
        for line in history[lines:]:
            spent = line["train_s"] + line["validation_s"]
            logger.info(
                "stage %s epoch %d of %d: loss %.4f%s; %.0f s, about %.0f s left",
                line["stage"], line["epoch"] + 1, epochs, line["loss"], _scores_text(line),
                spent, spent * (epochs - line["epoch"] - 1),
            )  # fmt: skip
        lines = max(lines, len(history))

    with periodically(log_new_epochs, every_s=2):
        yield


def _scores_text(line: dict[str, Any]) -> str:
    au = f", macro F1 {line['macro_f1']:.3f} (floor {line['floor']:.3f})" if "macro_f1" in line else ""
    if "expr_accuracy" not in line:
        return au
    return f"{au}, expressions {line['expr_accuracy']:.3f} right (majority {line['expr_majority']:.3f})"


def _read_metrics(folder: Storage) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in folder.read(run_dir.METRICS).splitlines()]
        if folder.exists(run_dir.METRICS)
        else []
    )
