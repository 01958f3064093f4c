"""Encoders of packets in actors with a GPU or a CPU each, to which the processes that decode send their crops."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayTaskError

from aupipe.annotation.encode import Encoders, broken_device, set_torch_threads
from aupipe.annotation.model_set import ModelSet
from aupipe.edge_errors import explain
from aupipe.errors import AupipeError, EnvironmentFailure, one_line

logger = logging.getLogger(__name__)

# Times that crops are given to an encoder which died: a node was lost, or they break the device, which costs a video.
_RETRIES = 3


class EncoderActor:
    """The encoders of packets in an actor with a GPU or a CPU. If the device fails, the actor is started again."""

    def __init__(self, models: ModelSet, batch_size: int, device: str) -> None:
        self._encoders, self._fatal = Encoders(models, batch_size, device), broken_device(device)
        set_torch_threads(1)

    def embed(self, crops: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the embeddings (n, ΣE) of crops (n, T, 112, 112, 3), and the seconds that they took."""
        start = time.monotonic()
        try:
            return self._encoders(list(crops)), time.monotonic() - start
        except self._fatal:
            logger.exception("the device failed; this encoder is started again")
            os._exit(1)  # `exit_actor` would be an end that Ray takes for intended


class EncoderActors:
    """`EncodersElsewhere` in actors, in turn, beginning with another one in each process."""

    def __init__(self, actors: Sequence[ActorHandle], embed_dim: int) -> None:
        self.work_s = 0.0
        self._actors, self._number, self._embed_dim = actors, os.getpid(), embed_dim

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        if not crops:
            return np.zeros((0, self._embed_dim), np.float32)
        self._number += 1
        actor = self._actors[self._number % len(self._actors)]
        try:
            embeddings, work_s = ray.get(actor.embed.remote(np.stack(crops)))
        except RayTaskError as error:  # Its text is a traceback; the cause is what a reason names.
            raise error.cause from error
        except ActorDiedError as error:
            if error.actor_init_failed:
                raise _creation_failure(error) from error
            raise
        self.work_s += work_s
        return embeddings


def _creation_failure(error: ActorDiedError) -> AupipeError:
    """Return an error that ends the job, because no input could be encoded. Ray keeps the text of the cause."""
    cause = one_line(str(error).rstrip().rpartition("\n")[2])
    return explain(error, running=True) or EnvironmentFailure(
        f"an encoder cannot be created on a node of the cluster ({cause}); fix: give the nodes an image with what it "
        "needs, or leave out resources.gpu"
    )


@contextmanager
def started(
    count: int, options: dict[str, Any], models: ray.ObjectRef, batch_size: int, device: str
) -> Iterator[list[ActorHandle]]:
    """Start so many encoders for the length of the block.

    Args:
        options: of each actor.
        models: reference of a `ModelSet`.
    """
    actor = ray.remote(EncoderActor).options(**options, max_restarts=-1, max_task_retries=_RETRIES)
    actors = [actor.remote(models, batch_size, device) for _ in range(count)]
    try:
        yield actors
    finally:
        for each in actors:
            ray.kill(each)
