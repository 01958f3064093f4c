"""Plans and runs of videos that need no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.judge import Judge
from aupipe.annotation.ledger import Committed
from aupipe.annotation.pending import Pending
from aupipe.annotation.phases import Run
from aupipe.annotation.probe_cache import ProbeCache
from aupipe.annotation.probed import Probed
from aupipe.annotation.progress import JobProgress
from aupipe.annotation.record_columns import RECORDS, REPEATED_TEXT
from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.work_plan import WorkList
from aupipe.storage import Storage


class Keys:
    """Keys that show their content, for a model and a decision."""

    config = AnnotateConfig()

    def __init__(self, model: str = "m", decision: str = "d") -> None:
        self.models, self.sha256, self.head_key = self, model, model
        self.decide_key = f"{model} {decision}"

    def segment(self, source_hash: str, segment: Segment) -> str:
        """Return the key of a segment."""
        return f"{source_hash}.{segment.number}"


def keys(model: str = "m", decision: str = "d") -> CacheKeys:
    """Return `Keys` in place of those of a job."""
    return cast(CacheKeys, Keys(model, decision))


def pending(frames: Mapping[str, int], segments: Sequence[Segment] = ()) -> Pending:
    """Return videos with these numbers of frames, by video_id, each with these segments. Its bytes are its name."""
    results = [
        ProbeResult(
            key,
            record=VideoRecord("u", key, fingerprint=key, source_hash=key, frames_expected=count),
            segments=[replace(segment, uri="u", video_id=key) for segment in segments],
        )
        for key, count in frames.items()
    ]
    inputs = Inputs.of(Input("u", key, signature="") for key in sorted(frames))
    return Pending(inputs, Probed.of(results).table(), keys())


def run(runner: Any, storage: Storage, quarantined_share: float = 0.8, inputs: int = 8) -> Run:
    """Return a run whose stages the runner replaces."""
    cache, judge = ProbeCache(storage, AnnotateConfig()), Judge(quarantined_share, inputs)
    return Run(keys(), storage, runner, 1, JobProgress(shown=False), cache, judge)


def work_list(extract: Pending) -> WorkList:
    """Return a plan in which only extraction is due."""
    nothing = Committed(pa.schema([*RECORDS, ("entry", REPEATED_TEXT)]).empty_table(), {}, np.arange(0))
    return WorkList(nothing, nothing, extract)
