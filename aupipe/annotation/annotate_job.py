"""The command line of an annotation job, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from aupipe.annotation.settings import AnnotateConfig
from aupipe.errors import ConfigError

Phase = Literal["observe", "finalize", "all"]


@dataclass(frozen=True)
class AnnotateJob:
    """The command line of an annotation job."""

    inputs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    out: str
    config: AnnotateConfig
    workers: int | None = None
    limit: int | None = None
    phase: Phase = "all"
    export: tuple[str, ...] = ()  # formats of `export.FORMS`
    prune: bool = False  # drop the committed rows of videos that the inputs do not name
    keep_intermediate: bool = False
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.prune and self.limit is not None:
            raise ConfigError("--prune with --limit would drop every video beyond the limit; give one of them")

    @property
    def local_decoders(self) -> int:
        """The number of segments that are decoded at a time if the job starts its own Ray."""
        return self.workers or len(os.sched_getaffinity(0))
