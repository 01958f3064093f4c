"""The annotation job: plan, observe, finalise, on Ray Data. What is committed is not done again."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from aupipe.annotation import attempts, ensemble, ledger, observed
from aupipe.annotation.keys import Keys, stamp
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.plan import Input, find_inputs
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.summary import Summary, write_run, write_videos
from aupipe.annotation.worklist import WorkList, add_probed, triage
from aupipe.faces.detect import Detector
from aupipe.pipelines.annotate_phases import Run, finalise, listen, observe, probe_all
from aupipe.pipelines.claim import claim
from aupipe.pipelines.session import session
from aupipe.storage import Storage


@dataclass(frozen=True)
class AnnotateJob:
    """What the command line asked for."""

    inputs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    out: str
    config: AnnotateConfig
    workers: int | None = None
    limit: int | None = None
    keep_intermediate: bool = False
    command: tuple[str, ...] = ()

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
    inputs, _ = find_inputs(job.inputs, job.limit)
    Detector(job.config.detector)  # or wrong weights would show on a worker
    keys = Keys(ensemble.load(job.checkpoints, job.config.ensemble), job.config)
    storage = Storage(job.out)
    with claim(storage):
        return _run(job, inputs, keys, storage, start)


def describe(job: AnnotateJob) -> str:
    """What `annotate` would do, without starting Ray or opening a video."""
    inputs, passed_over = find_inputs(job.inputs, job.limit)
    Detector(job.config.detector)
    keys = Keys(ensemble.load(job.checkpoints, job.config.ensemble), job.config)
    stamps = {video.video_id: stamp(video.uri) for video in inputs}
    work, to_probe = triage(inputs, stamps, Ledger.read(Storage(job.out)), keys)
    return (
        f"{len(inputs)} inputs ({passed_over} other files passed over): {len(work.unchanged)} done, "
        f"{len(work.decide)} to decide again, {len(to_probe)} to probe and decode\n"
        f"{_models(keys)}; "
        f"{job.local_decoders} decoders on this machine; tables in {job.out}"
    )


def _models(keys: Keys) -> str:
    named = [f"model {m.card.sha256[:12]} ({m.card.model.name})" for m in keys.models.members]
    return f"{keys.config.ensemble} of {', '.join(named)}" if len(named) > 1 else named[0]


def _run(job: AnnotateJob, inputs: Sequence[Input], keys: Keys, storage: Storage, start: float) -> Summary:
    books = Ledger.read(storage)
    books.reconcile()
    stamps = {video.video_id: stamp(video.uri) for video in inputs}
    work, to_probe = triage(inputs, stamps, books, keys)
    frames = 0
    if to_probe or work.decide:
        attempts.forget(storage)
        with session(num_cpus=job.local_decoders + 1):  # one more for the encoder, which mostly waits for decoders
            run = Run(keys, storage, ray.put(keys.models), books.next_generation, job.workers)
            add_probed(work, probe_all(run, to_probe), stamps, books, keys)
            work.quarantine(listen(run, work.observe))
            frames, reasons = observe(run, work.observe)
            work.quarantine(reasons)
            finalise(run, work.observe, work.decide)
        _withdraw(work, books, storage)
        books = Ledger.read(storage)
        books.reconcile()
    if not job.keep_intermediate:
        there = [(record["fingerprint"], record["head_key"]) for record, _ in books.current().values()]
        observed.delete(storage, {keys.video(f) for f, head_key in there if head_key == keys.head(f)})
    write_videos(storage, books, work.aside)
    records = {video_id: record for video_id, (record, _) in books.current().items()} | work.aside
    summary = Summary(job.out, [records[v.video_id] for v in inputs], frames, time.monotonic() - start)
    write_run(storage, keys, job.command, summary)
    return summary


def _withdraw(work: WorkList, books: Ledger, storage: Storage) -> None:
    """Commit that videos which earlier runs annotated cannot be done now: rows of what is no longer there must go."""
    current = books.current()
    gone = [record for video_id, record in sorted(work.aside.items()) if video_id in current]
    if gone:
        records = [{"fingerprint": "", "head_key": "", "decide_key": "", **record} for record in gone]
        generation = Ledger.read(storage).next_generation
        ledger.commit(storage, FRAMES.empty_table(), EVENTS.empty_table(), records, generation, rows_per_file=1)
