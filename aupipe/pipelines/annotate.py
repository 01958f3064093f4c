"""The annotation job: plan, observe, finalize, on Ray Data. What is committed is not done again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ray

from aupipe.annotation import faults, features, ledger, model_set, preflight, retry
from aupipe.annotation.cache_keys import CacheKeys, stat_signature
from aupipe.annotation.inputs import Input, PassedOver, find_inputs
from aupipe.annotation.ledger import Ledger, Record
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.summary import Summary, write_run, write_videos
from aupipe.annotation.work_plan import WorkList, add_probed, triage
from aupipe.errors import ConfigError, redact
from aupipe.faces.detect import Detector
from aupipe.models import default_models
from aupipe.pipelines.annotate_phases import (
    Run,
    configure,
    export,
    extract,
    extract_audio,
    finalize,
    probe_all,
    resource_bundles,
    unobserved,
)
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.run_lease import run_lease, storage_errors_as_config_errors
from aupipe.pipelines.session import reserved_resources, session
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

Phase = Literal["observe", "finalize", "all"]


@dataclass(frozen=True)
class AnnotateJob:
    """What the command line asked for."""

    inputs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    out: str
    config: AnnotateConfig
    workers: int | None = None
    limit: int | None = None
    phase: Phase = "all"
    export: tuple[str, ...] = ()  # forms of `export.FORMS`
    prune: bool = False  # drop what is committed for videos that are not named
    keep_intermediate: bool = False
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.prune and self.limit is not None:
            raise ConfigError("--prune with --limit would drop every video beyond the limit; give one of them")

    @property
    def local_decoders(self) -> int:
        """How many segments are decoded at a time where the job starts a Ray of its own."""
        return self.workers or len(os.sched_getaffinity(0))


def annotate(job: AnnotateJob) -> Summary:
    """Run the job.

    Raises:
        ConfigError: inputs, checkpoint or settings are wrong; nothing was started.
    """
    start = time.monotonic()
    inputs, passed_over = find_inputs(job.inputs, job.limit, job.config.images)
    if text := passed_over.text():  # at once too, because a run may take days
        logger.info("%s", text)
    Detector(job.config.detector)  # or wrong weights would show on a worker
    with storage_errors_as_config_errors("a checkpoint"):
        keys = CacheKeys(model_set.load(job.checkpoints, job.config.ensemble), job.config)
    storage = Storage(job.out)
    with run_lease(storage):
        return _run(job, inputs, passed_over, keys, storage, start)


def describe(job: AnnotateJob) -> str:
    """What `annotate` would do, by the headers of the videos, without starting Ray or decoding."""
    inputs, passed_over = find_inputs(job.inputs, job.limit, job.config.images)
    Detector(job.config.detector)
    with storage_errors_as_config_errors("a checkpoint or --out"):
        keys = CacheKeys(model_set.load(job.checkpoints, job.config.ensemble), job.config)
        books = Ledger.read(Storage(job.out))
    stamps = {video.video_id: stat_signature(video.uri) for video in inputs}
    work, to_probe = triage(inputs, stamps, books, keys)
    frames = preflight.estimate_frames(to_probe, job.config)
    hours = frames * job.config.cost.frame_cpu_s / 3600
    cost = f", cost about {hours * job.config.cost.cpu_hour:.2f}" if job.config.cost.cpu_hour else ""
    return (
        f"{len(inputs)} inputs ({passed_over.files} other files passed over): {len(work.unchanged)} done, "
        f"{len(work.decide)} to decide again, {len(to_probe)} to probe and decode\n"
        f"about {frames:,} frames, {hours:.2f} CPU-hours at {job.config.cost.frame_cpu_s:g} s a frame, "
        f"{60 * hours / job.local_decoders:.0f} minutes with {job.local_decoders} decoders{cost}\n"
        f"{_models(keys)}; tables in {redact(job.out)}" + (f"\n{passed_over.text()}" if passed_over.text() else "")
    )


def _models(keys: CacheKeys) -> str:
    named = [f"model {m.card.sha256[:12]} ({m.card.model.name})" for m in keys.models.members]
    return f"{keys.config.ensemble} of {', '.join(named)}" if len(named) > 1 else named[0]


def _run(
    job: AnnotateJob, inputs: Sequence[Input], passed_over: PassedOver, keys: CacheKeys, storage: Storage, start: float
) -> Summary:
    books = Ledger.read(storage)
    named = {video.video_id for video in inputs}
    books.reconcile(named if job.prune else None)
    stamps = {video.video_id: stat_signature(video.uri) for video in inputs}
    work, to_probe = triage(inputs, stamps, books, keys)
    frames, work_s = 0, 0.0
    not_exported: dict[str, Record] = {}
    faults.delete_logs(storage, named)
    if to_probe or work.decide or job.export:
        retry.reset_attempts(storage)
        with session(num_cpus=job.local_decoders + job.config.encoders):  # encoders mostly wait
            # The package's own models are everywhere that the package is, and only the driver reads them.
            check_visible_on_all_nodes(
                job.out, [*job.inputs, *(path for path in job.checkpoints if path not in default_models.FOLDERS)]
            )
            configure(job.config)
            if job.workers is None and not ray.cluster_resources().get("CPU"):
                raise ConfigError("the cluster has no CPU yet; say how many to ask for with --workers")
            run = Run(
                keys, storage, ray.put(keys.models), ray.put(keys.models.heads), books.next_generation, job.workers
            )
            add_probed(work, probe_all(run, to_probe), stamps, books, keys)
            with reserved_resources(resource_bundles(run, work.observe), job.config.resources):
                frames, work_s = _work(run, work, job)
            _withdraw(work, books, storage)
            books = Ledger.read(storage)
            books.reconcile()
            not_exported = _incomplete(books, export(run, books, named, job.export))
    write_videos(storage, books, work.quarantined | not_exported, inputs, only=named if job.prune else None)
    if not job.keep_intermediate:  # a run that was killed may have left what is done since
        there = [(record["content"], record["head_key"]) for record, _ in books.current().values()]
        features.delete(storage, {keys.video(c) for c, head_key in there if head_key == keys.head(c)})
        if job.prune:
            features.delete_all(storage)
    records = {video_id: record for video_id, (record, _) in books.current().items()} | work.quarantined | not_exported
    videos = [records[video.video_id] for video in inputs if video.video_id not in work.pending]
    summary = Summary(
        out=job.out, videos=videos, pending=len(work.pending), frames=frames, seconds=time.monotonic() - start,
        work_s=work_s, cost=work_s / 3600 * job.config.cost.cpu_hour,
        passed_over=passed_over,
    )  # fmt: skip
    write_run(storage, keys, job.command, summary)
    return summary


def _work(run: Run, work: WorkList, job: AnnotateJob) -> tuple[int, float]:
    """Observe and finalize, wave after wave, as far as the phase goes. Returns frames and CPU seconds spent."""
    if job.phase == "finalize":
        work.postpone(unobserved(run, work.observe))
    waves = work.disk_bounded_batches(run.keys.config.wave_bytes, run.keys.models.embed_dim) or [{}]
    if job.phase == "observe":
        waves = [dict(work.observe)]  # the user asked for all of it to lie there
    total = 0
    for number, wave in enumerate(waves):
        if job.phase != "finalize":
            reasons = extract_audio(run, wave)
            frames, more = extract(run, {key: due for key, due in wave.items() if key not in reasons})
            work.quarantine(reasons | more)
            total += frames
        if job.phase != "observe":
            due = {key: due for key, due in wave.items() if key in work.observe}
            reasons = finalize(run, due, work.decide if number == 0 else {})
            work.quarantine(reasons)
            if not job.keep_intermediate:
                # What finalize could not take is observed anew, as its fault may lie there; but not by this phase.
                left = reasons if job.phase == "finalize" else ()
                done = [record["content"] for video_id, (record, _) in due.items() if video_id not in left]
                features.delete(run.storage, {run.keys.video(content) for content in done})
    work_s = sum(record.get("work_s", 0.0) for record, _ in work.observe.values())
    if job.phase == "observe":
        work.postpone([*work.observe, *work.decide])
    return total, work_s


def _incomplete(books: Ledger, reasons: Mapping[str, str]) -> dict[str, Record]:
    """The records of videos whose tables are committed, and which could not be exported for these reasons.

    For this run's videos.parquet alone: the ledger holds what became of the tables, and every export is made anew.
    """
    current = books.current()
    found = {video_id: current[video_id][0] for video_id in reasons}
    return {
        video_id: record
        | {"status": "partial", "reason": "; ".join(filter(None, (record["reason"], reasons[video_id])))}
        for video_id, record in found.items()
    }


def _withdraw(work: WorkList, books: Ledger, storage: Storage) -> None:
    """Commit that videos which earlier runs annotated cannot be done now: rows of what is no longer there must go."""
    current = books.current()
    gone = [record for video_id, record in sorted(work.quarantined.items()) if video_id in current]
    if gone:
        unknown = {"fingerprint": "", "content": "", "head_key": "", "decide_key": ""}
        # Without the keys of what was to be made, a video that met a fault of ours is tried again by the next run.
        records = [record | unknown if faults.is_internal(record["reason"]) else unknown | record for record in gone]
        generation = Ledger.read(storage).next_generation
        ledger.commit(storage, FRAMES.empty_table(), EVENTS.empty_table(), records, generation, rows_per_file=1)
