"""The annotation job: plan, extract, finalize. Completed work is never recomputed; every run resumes."""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation import (
    export,
    faults,
    features,
    ledger_entries,
    phases,
    preflight,
    probe_cache,
    report_files,
    retry,
)
from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.input_search import find_inputs
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.job_check import check_exports, checked_inputs, loaded_keys
from aupipe.annotation.judge import Judge
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.packets import Packet
from aupipe.annotation.probe_cache import ProbeCache
from aupipe.annotation.progress import JobProgress, StageWork
from aupipe.annotation.prune import delete_shown
from aupipe.annotation.record_columns import to_table
from aupipe.annotation.runner import LocalRunner, OpenRunner, Runner, local_runner, one_thread
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.skipped_files import SkippedFiles
from aupipe.annotation.small_files import plan_small_files
from aupipe.annotation.stat_signatures import with_signatures
from aupipe.annotation.summary import VIDEOS_FILE, Summary, write_run, write_videos
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import mask, one_piece, order_of, rows_of, take_rows
from aupipe.annotation.work_plan import WorkList, plan
from aupipe.errors import ConfigError, redact
from aupipe.parquet import read_stored
from aupipe.run_lease import run_lease
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

# The largest job that `engine=auto` runs in this process, about 30 s of work on one core.
LOCAL_FRAMES = 600
_SUMMARIZED = ["video_id", "status", "reason", "frames_expected", "frames_decoded", "frames_lost", "frames_corrupt"]
_LOCAL_INPUTS = 20  # at most, because the estimate of the frames reads each header


def annotate(job: AnnotateJob, open_ray: OpenRunner) -> Summary:
    """Run the job.

    Args:
        open_ray: opens the Ray runner, if the job runs on Ray.

    Raises:
        ConfigError: inputs, checkpoints or settings are invalid; nothing was started.
    """
    start = time.monotonic()
    inputs, skipped = checked_inputs(job)
    if passed := skipped.text():  # It is logged at once as well, because a run may take days.
        logger.info("%s", passed)
    keys = loaded_keys(job)
    storage = Storage(job.out)
    with run_lease(storage):
        return _run(job, inputs, skipped, keys, storage, open_ray, start)


@dataclass(frozen=True)
class Tables:
    """The tables of an annotation (see `schema`)."""

    frames: pa.Table
    events: pa.Table
    videos: pa.Table


def annotate_in_memory(inputs: Sequence[Input], models: ModelSet, config: AnnotateConfig) -> Tables:
    """Annotate in this process, without Ray and without writing files.

    Raises:
        ConfigError: two inputs have the same video_id.
    """
    keys, storage = CacheKeys(models, config), Storage(f"memory://aupipe-{uuid.uuid4().hex}")
    job = AnnotateJob(tuple(video.uri for video in inputs), (), storage.root, config)
    try:
        with one_thread():
            state = _State.read(job, Inputs.of(inputs).sorted(), keys, storage)
            runner = LocalRunner(keys, storage, guarded=False)
            _carry_out(job, state, keys, storage, runner, JobProgress(shown=False))
        for name in storage.names(faults.LOGS):  # The reasons name these files, which this call deletes.
            logger.error("%s: %s", name, storage.read(name).decode())
        committed = Ledger.read(storage)
        write_videos(storage, committed, state.work.quarantined, state.inputs)
        entries = sorted(committed.entries.values(), key=lambda entry: entry.name)
        frames = [ledger_entries.read_all(storage, entry.frames) for entry in entries if entry.frames]
        events = [ledger_entries.read_all(storage, entry.events) for entry in entries if entry.events]
        return Tables(
            pa.concat_tables(frames).sort_by([("video_id", "ascending"), ("frame", "ascending")])
            if frames else FRAMES.empty_table(),
            pa.concat_tables(events) if events else EVENTS.empty_table(),
            read_stored(storage, VIDEOS_FILE),
        )  # fmt: skip
    finally:
        storage.delete_all()


@dataclass
class _State:
    """The inputs of a run with their signatures, the results that are committed for them, and the work that is due."""

    inputs: Inputs
    committed: Ledger
    work: WorkList

    @property
    def described(self) -> Inputs:
        """The inputs that videos.parquet describes."""
        if not self.work.clashing:
            return self.inputs
        is_clashing = pc.is_in(self.inputs.ids, pa.array([*self.work.clashing]))
        return self.inputs.take(np.flatnonzero(~mask(is_clashing)))

    @classmethod
    def read(cls, job: AnnotateJob, inputs: Inputs, keys: CacheKeys, storage: Storage) -> _State:
        with ThreadPoolExecutor(1) as thread:  # Both wait for a disk or a store.
            signed = thread.submit(with_signatures, inputs)
            committed = Ledger.read(storage)
            check_exports(job, inputs, committed)
            if job.prune:  # Before the rows are: if this run is killed in between, the next one finds the videos again.
                delete_shown(storage, committed, inputs.ids)
            committed.reconcile(inputs.ids.to_pylist() if job.prune else None)
            committed.current()  # kept for the plan; it takes long for a large archive
            inputs = signed.result()
        return cls(inputs, committed, plan(inputs, committed, keys))


def _run(
    job: AnnotateJob, inputs: Inputs, skipped: SkippedFiles, keys: CacheKeys, storage: Storage, open_ray: OpenRunner,
    start: float,
) -> Summary:  # fmt: skip
    state = _State.read(job, inputs, keys, storage)
    inputs = state.inputs
    done = _Done()
    not_exported: dict[str, VideoRecord] = {}
    committed = state.committed
    faults.delete_logs(storage, inputs.ids.to_pylist())
    if state.work.to_probe or state.work.decide or job.export:
        is_local = _is_local(job, state, storage)
        if not is_local:
            retry.reset_attempts(storage)
        progress = JobProgress()
        try:
            with (local_runner if is_local else open_ray)(job, keys, storage) as runner:
                done.workers, done.encoders = runner.decoders, runner.encoders
                done.frames, done.work_s = _carry_out(job, state, keys, storage, runner, progress)
                changed = _changed(job, state)
                progress.add_quarantined(changed.values())
                state.work.drop_due()  # The ledger has their records, and an archive is large.
                committed = _settle(state.work, changed, done, Ledger.read(storage), storage)
                not_exported = _incomplete(committed, phases.export(runner, committed, inputs.ids, job.export))
                done.stages = progress.work
                retry.reset_attempts(storage)
                # Before the runner ends, because Ray takes a second for it.
                summary = _complete(job, state, committed, not_exported, skipped, done, keys, storage, start)
                done.is_complete = True
                return summary
        except KeyboardInterrupt:
            if done.is_complete:  # All is written, and only the runner was still ending.
                raise
            # Otherwise replaced and withdrawn rows stay beside the others until the next run.
            committed = _settle(state.work, {}, done, Ledger.read(storage), storage)
            write_videos(storage, committed, state.work.quarantined | done.kept, state.described)
            done.frames, done.stages, done.interrupted = progress.work.frames, progress.work, True
            write_run(storage, keys, job.command, _summary(job, state, committed, {}, skipped, done, keys, start))
            raise
        finally:
            progress.close()
    _delete_features(job, state, keys, storage)
    if state.work.quarantined:  # inputs that are refused unopened
        _delete_exports(job, state, storage)
        committed = _settle(state.work, {}, done, committed, storage)
    return _complete(job, state, committed, not_exported, skipped, done, keys, storage, start)


def _complete(
    job: AnnotateJob, state: _State, committed: Ledger, not_exported: Mapping[str, VideoRecord], skipped: SkippedFiles,
    done: _Done, keys: CacheKeys, storage: Storage, start: float,
) -> Summary:  # fmt: skip
    """Write videos.parquet and run.json, and delete what only the work needed."""
    work = state.work
    if not work.pending:
        probe_cache.delete_all(storage)
    own = work.quarantined | done.kept | dict(not_exported)
    write_videos(storage, committed, own, state.described, only=state.inputs.ids if job.prune else None)
    if not job.keep_intermediate:  # A killed run may have left features of completed videos.
        current = (record for _, (record, _) in committed.current().pairs())
        features.delete(storage, (keys.video(each.source_hash) for each in current if each.head_key == keys.head_key))
    summary = _summary(job, state, committed, not_exported, skipped, done, keys, start)
    write_run(storage, keys, job.command, summary)
    return summary


@dataclass
class _Done:
    """The work that a run has done, and the processes that did it.

    Attributes:
        kept: records of inputs that cannot be reached now, whose rows of an earlier run are kept. They go only into the
            videos.parquet of this run.
        is_complete: videos.parquet and run.json are written.
    """

    frames: int = 0
    work_s: float = 0.0
    stages: StageWork = field(default_factory=StageWork)
    workers: int = 1
    encoders: int = 0
    kept: dict[str, VideoRecord] = field(default_factory=dict)
    interrupted: bool = False
    is_complete: bool = False


def _summary(
    job: AnnotateJob, state: _State, committed: Ledger, not_exported: Mapping[str, VideoRecord], skipped: SkippedFiles,
    done: _Done, keys: CacheKeys, start: float,
) -> Summary:  # fmt: skip
    current = committed.current()
    own = state.work.quarantined | state.work.clashing | done.kept | dict(not_exported)
    ids = state.inputs.ids
    own = {video_id: record for video_id, record in own.items() if video_id not in state.work.pending}
    rows = rows_of(current.ids, ids)
    rows[mask(pc.is_in(ids, pa.array([*own, *state.work.pending], pa.string())))] = -1
    tables = [take_rows(current.table.select(_SUMMARIZED), rows[rows >= 0])]
    videos = pa.concat_tables([*tables, to_table(own.values()).select(_SUMMARIZED)]).unify_dictionaries()
    videos = take_rows(videos, order_of(one_piece(videos["video_id"])))
    otherwise = mask(current.have_rows()) & ~mask(current.made_under(keys.head_key, keys.decide_key))
    return Summary(
        out=job.out, videos=videos, pending=len(ids) - len(videos), frames=done.frames,
        seconds=time.monotonic() - start, work_s=done.work_s,
        cost=done.work_s / 3600 * job.config.cost.cpu_hour, skipped=skipped,
        stages=done.stages.seconds,
        bound_by=done.stages.bound_by(done.workers, done.encoders) if done.frames else "",
        better_encoders=done.stages.better_encoders(done.workers, done.encoders), interrupted=done.interrupted,
        otherwise=int(otherwise.sum()),
    )  # fmt: skip


def _is_local(job: AnnotateJob, state: _State, storage: Storage) -> bool:
    """Return whether the job runs in this process, and log why."""
    if job.config.engine != "auto":
        return job.config.engine == "local"
    has_ray = bool(os.environ.get("RAY_ADDRESS")) or ("ray" in sys.modules and sys.modules["ray"].is_initialized())
    work = state.work
    small = len(work.to_probe) <= _LOCAL_INPUTS and len(work.decide) <= phases.GROUP_VIDEOS
    if has_ray or not small or job.workers is not None or job.config.resources.gpu is True:
        return False
    if retry.has_marks(storage):  # An input that ended the process of an earlier run could end this one too.
        return False
    frames = preflight.estimate_frames(work.to_probe, job.config)
    if frames > LOCAL_FRAMES:
        return False
    logger.info("about %d frames: the job runs in this process, without Ray (--set engine=ray runs it on Ray)", frames)
    return True


def _carry_out(
    job: AnnotateJob, state: _State, keys: CacheKeys, storage: Storage, runner: Runner, progress: JobProgress
) -> tuple[int, float]:
    """Probe, extract and finalize the work that is due. Return the extracted frames and the CPU seconds spent."""
    cache = ProbeCache(storage, keys.config)
    judge = Judge(keys.config.limits.quarantined_share, len(state.inputs))
    run = phases.Run(keys, storage, runner, state.committed.next_generation, progress, cache, judge)
    try:
        small = _probe(job, state, run)
        state.committed.renew(state.work.touched)
        phases.count_work(run, state.work, job)
        _delete_exports(job, state, storage)
        _delete_features(job, state, keys, storage)
        with runner.reserved(int(state.work.extract.segments.sum()) + len(small)):
            frames, left = phases.extract_and_finalize(run, state.work, job, small)
            if left.count:
                rows = rows_of(state.inputs.ids, one_piece(left.table()["video_id"]))
                more = plan(state.inputs.take(rows), state.committed, keys, left)
                try:
                    frames += phases.extract_and_finalize(run, more, job)[0]
                finally:
                    state.work.add(more)
    except BaseException:  # also an interruption: the next run does not probe them again
        cache.write()
        raise
    return frames, state.work.work_s


def _probe(job: AnnotateJob, state: _State, run: phases.Run) -> Sequence[Packet]:
    """Probe what must be probed before its work is planned, and plan the work. Return packets of the small files."""
    due = state.work.to_probe
    small: Sequence[Packet] = ()
    probed = run.cache.read(due)
    if run.has_packets(job):
        known = one_piece(probed.table()["video_id"])
        small, estimates = plan_small_files(due, known, state.committed.current(), run.keys, run.generation)
        probed.add_table(estimates)
    phases.probe(run, due, probed)
    state.work = plan(state.inputs, state.committed, run.keys, probed)
    return small


def _delete_exports(job: AnnotateJob, state: _State, storage: Storage) -> None:
    """Delete the exports of rows that this run replaces or withdraws; `phases.export` writes those of `job` again.

    It happens before the rows are replaced, because a run that is killed in between would leave former ones. A report
    stays, because its overlays may have taken hours, with a warning.
    """
    work, current = state.work, state.committed.current()
    ids = current.ids
    if not len(ids) or job.phase == "observe":
        return
    report = f"{report_files.FOLDER}/{report_files.INDEX}"
    has_exports, has_report = export.exist(storage), storage.exists(report)
    if not (has_exports or has_report):
        return
    withdrawn = [video_id for video_id, record in work.quarantined.items() if not faults.is_unreachable(record.reason)]
    touched = pa.array([*work.extract, *work.decide, *withdrawn], pa.string())
    if has_report and pc.any(pc.filter(current.have_rows(), pc.is_in(ids, touched))).as_py():
        logger.warning("%s shows former rows (report.py writes it again)", redact(storage.path(report)))
    if not has_exports:
        return
    stale = pc.filter(touched, pc.is_in(touched, ids)).to_pylist()
    kept = pc.filter(ids, pc.invert(pc.is_in(ids, touched))).to_pylist()
    others = [form for form in export.FORMS if form not in job.export]
    export.delete(storage, stale, job.export, kept)
    if count := export.delete(storage, stale, others, kept):
        logger.warning("exports of former rows deleted: %d (--export writes them again)", count)


def _delete_features(job: AnnotateJob, state: _State, keys: CacheKeys, storage: Storage) -> None:
    """With --prune, delete the features of videos that are no inputs, and those of other models or settings.

    It happens once the inputs are probed, because those of a run of the phase `observe` are in no ledger.
    """
    if not job.prune:
        return
    work, current = state.work, state.committed.current()
    due = (record for videos in (work.unchanged, work.decide, work.extract) for _, (record, _) in videos.pairs())
    unreachable = (current[video_id][0] for video_id in work.quarantined if video_id in current)
    features.delete_others(storage, (keys.video(record.source_hash) for record in chain(due, unreachable)))


def _changed(job: AnnotateJob, state: _State) -> dict[str, str]:
    """Return the reasons of annotated videos whose file was overwritten since this run listed it, by video_id.

    Their rows may be those of two files. A new listing finds them, because a request for each file at the time when it
    is decoded would cost more, and could be too early.
    """
    try:
        listed, _ = find_inputs(job.inputs, job.limit, job.config.images)
    except ConfigError as error:  # What was read has gone since, which does not make its rows wrong.
        logger.warning("files that were overwritten during the run are not found: %s", error)
        return {}
    extract = state.work.extract
    listed = with_signatures(listed.take(np.flatnonzero(rows_of(extract.ids, listed.ids) >= 0)))
    before = state.inputs.take(rows_of(state.inputs.ids, listed.ids)).table["signature"]
    now = listed.table["signature"]
    differ = mask(pc.not_equal(now, before)) & mask(pc.not_equal(now, "")) & mask(pc.not_equal(before, ""))
    return {
        video.video_id: f"changed: {redact(video.uri)}: it was overwritten during the run"
        for video in listed.take(np.flatnonzero(differ)) if video.video_id in extract
    }  # fmt: skip


def _incomplete(committed: Ledger, reasons: Mapping[str, str]) -> dict[str, VideoRecord]:
    """Return the records, with status partial, of videos whose tables are committed and whose export failed.

    They go only into the videos.parquet of this run. The ledger describes the tables, and each run exports again.
    """
    current = committed.current()
    records = {video_id: current[video_id][0] for video_id in reasons}
    return {
        video_id: replace(record, status="partial", reason="; ".join(filter(None, (record.reason, reasons[video_id]))))
        for video_id, record in records.items()
    }


def _settle(work: WorkList, changed: Mapping[str, str], done: _Done, committed: Ledger, storage: Storage) -> Ledger:
    """Withdraw the rows of quarantined videos, except those that cannot be reached now, and delete replaced rows.

    Return the ledger after it.

    Args:
        changed: the reasons of further videos to be quarantined, by video_id.
    """
    done.kept = work.keep_unreachable(committed.current())
    work.quarantine_committed(changed, committed.current())
    committed = _withdraw(work, committed, storage)
    committed.reconcile()
    return committed


def _withdraw(work: WorkList, committed: Ledger, storage: Storage) -> Ledger:
    """Commit the quarantined records of videos that have rows, or had them in earlier runs, which removes the rows.

    Return the ledger after it.
    """
    current = committed.current()
    # A record without keys makes the next run retry a video that failed because of an internal error, or whose file was
    # overwritten, even if it has the same bytes.
    withdrawn = {
        video_id: replace(record, fingerprint="", source_hash="", head_key="", decide_key="")
        if faults.is_internal(record.reason) or faults.is_changed(record.reason)
        else record
        for video_id, record in sorted(work.quarantined.items()) if video_id in current
    }  # fmt: skip
    records = [record for video_id, record in withdrawn.items() if record != current[video_id][0]]
    if records:
        frames, events = FRAMES.empty_table(), EVENTS.empty_table()
        entry = ledger_entries.commit(storage, frames, events, records, committed.next_generation, rows_per_file=1)
        committed.add(entry, records)
    return committed
