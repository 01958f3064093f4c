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
from ray.exceptions import RayTaskError

from aupipe.annotation.encode import Encoders, broken_device, set_torch_threads
from aupipe.annotation.model_set import ModelSet

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
        self.work_s += work_s
        return embeddings


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
