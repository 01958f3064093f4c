"""The annotation job: plan, extract, finalize. Completed work is never recomputed; every run resumes.

A job runs its stages with `LocalRunner` in this process or with `pipelines.annotate` on Ray. Both run the same stages
over the same plan and write the same ledger and the same tables, bit for bit.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, Protocol

import pyarrow as pa

from aupipe.annotation import audio_features, faults, features, ledger, model_set, preflight, probe_cache, retry, schema
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import set_torch_threads
from aupipe.annotation.inputs import Input, SkippedFiles, find_inputs
from aupipe.annotation.ledger import Entry, Ledger
from aupipe.annotation.model_set import ModelSet
from aupipe.annotation.model_stages import (
    AudioResult,
    AudioTask,
    Encode,
    EncodedPart,
    Export,
    ExportTask,
    ExtractAudio,
    Finalize,
    Group,
    VideosResult,
)
from aupipe.annotation.packets import AnnotatePacket, Packet, PacketResult, plan_packets
from aupipe.annotation.probe_cache import ProbeCache
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Decode, Probe, ProbeRequest, ProbeResult, Row, SegmentTask
from aupipe.annotation.stat_signatures import stat_signatures
from aupipe.annotation.summary import VIDEOS_FILE, Summary, write_run, write_videos
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.work_plan import PendingVideo, Spent, WorkList, plan
from aupipe.errors import AupipeError, ConfigError, redact
from aupipe.faces.detect import Detector
from aupipe.run_lease import run_lease, storage_errors_as_config_errors
from aupipe.storage import Storage

logger = logging.getLogger(__name__)

Phase = Literal["observe", "finalize", "all"]

PARTS_PER_BATCH = 4  # parts of segments in one batch of the encoder
GROUP_VIDEOS = 64  # videos finalized together, at most
# The largest job that `engine=auto` runs in this process, about 30 s of work on one core.
LOCAL_FRAMES = 600
_JUDGED_INPUTS = 200  # the first ones, of which `limits.quarantined_share` is the maximum that may be quarantined
_LOCAL_INPUTS = 20  # at most, because the estimate of the frames reads each header


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


class Runner(Protocol):
    """A runner of the stages of `stages` and `model_stages`; it may return rows in any order."""

    def probe(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Run `Probe`, on at least one of the rows."""

    @property
    def has_packets(self) -> bool:
        """True if a task can both decode and run the models."""

    def annotate_packets(self, packets: Sequence[Packet]) -> Iterable[Row]:
        """Run `AnnotatePacket`."""

    def extract_audio(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Run `ExtractAudio`."""

    def extract(self, tasks: Sequence[SegmentTask]) -> Iterable[Row]:
        """Run `Decode`, then `Encode` on its parts."""

    def finalize(self, groups: Sequence[Group]) -> Iterable[Row]:
        """Run `Finalize`."""

    def export(self, rows: Sequence[Row], forms: tuple[str, ...]) -> Iterable[Row]:
        """Run `Export`."""

    def reserved(self, segments: int) -> AbstractContextManager[None]:
        """Reserve the resources for this number of segments during the block."""


# Opens a runner for a planned job, after the checks that are specific to that runner.
OpenRunner = Callable[[AnnotateJob, CacheKeys, Storage], AbstractContextManager[Runner]]


class LocalRunner:
    """A runner that calls the stages one after another in this process."""

    def __init__(self, keys: CacheKeys, storage: Storage, *, guarded: bool = True) -> None:
        """Create the runner. `guarded`: a stalled stage ends this process, and each input has a limited number of
        attempts.
        """
        self._keys, self._storage, self._guarded = keys, storage, guarded

    def probe(self, rows: Sequence[Row]) -> Iterator[Row]:
        return map(Probe(self._keys.config, self._storage, self._guarded), rows)

    has_packets = True

    def annotate_packets(self, packets: Sequence[Packet]) -> Iterator[Row]:
        keys = self._keys
        stage = AnnotatePacket(
            keys.models, self._storage, keys.config, keys.decision, self._device, self._guarded
        )  # fmt: skip
        return (stage(packet.to_row()) for packet in packets)

    @property
    def _device(self) -> str:
        resources = self._keys.config.resources
        return resources.device if resources.gpu is True else "cpu"

    def extract_audio(self, rows: Sequence[Row]) -> Iterator[Row]:
        return map(ExtractAudio(self._keys.config, self._storage, self._guarded), rows)

    def extract(self, tasks: Sequence[SegmentTask]) -> Iterator[Row]:
        config, models = self._keys.config, self._keys.models
        decode = Decode(config, self._storage, models.templates, self._guarded)
        encode = Encode(models, self._storage, config.batch_size, self._device)
        parts = (part for task in tasks for part in decode(task.to_row()))
        while batch := list(islice(parts, PARTS_PER_BATCH)):
            yield from encode(pa.Table.from_pylist(batch)).to_pylist()

    def finalize(self, groups: Sequence[Group]) -> Iterator[Row]:
        finalize = Finalize(self._keys.models.heads, self._storage, self._keys.config, self._keys.decision)
        return (finalize(group.to_row()) for group in groups)

    def export(self, rows: Sequence[Row], forms: tuple[str, ...]) -> Iterator[Row]:
        return map(Export(self._storage, forms), rows)

    @contextmanager
    def reserved(self, segments: int) -> Iterator[None]:
        yield


@contextmanager
def local_runner(job: AnnotateJob, keys: CacheKeys, storage: Storage) -> Iterator[Runner]:
    """Open a `LocalRunner`."""
    with _one_thread():
        yield LocalRunner(keys, storage)


def annotate(job: AnnotateJob, open_ray: OpenRunner) -> Summary:
    """Run the job.

    Args:
        open_ray: opens the Ray runner, if the job runs on Ray.

    Raises:
        ConfigError: inputs, checkpoints or settings are invalid; nothing was started.
    """
    start = time.monotonic()
    inputs, skipped = find_inputs(job.inputs, job.limit, job.config.images)
    if passed := skipped.text():  # It is logged at once as well, because a run may take days.
        logger.info("%s", passed)
    keys = _keys(job)
    storage = Storage(job.out)
    with run_lease(storage):
        return _run(job, inputs, skipped, keys, storage, open_ray, start)


@dataclass(frozen=True)
class AnnotatePlan:
    """The checked inputs and models of a job, and the work that is due."""

    job: AnnotateJob
    inputs: Sequence[Input]
    skipped: SkippedFiles
    keys: CacheKeys
    work: WorkList


def check(job: AnnotateJob) -> AnnotatePlan:
    """Check what a job needs, and return its plan. Neither starts Ray nor decodes.

    Raises:
        ConfigError: as `annotate`.
    """
    inputs, skipped = find_inputs(job.inputs, job.limit, job.config.images)
    keys = _keys(job)
    with storage_errors_as_config_errors("--out"):
        committed = Ledger.read(Storage(job.out))
    return AnnotatePlan(job, inputs, skipped, keys, plan(inputs, stat_signatures(inputs), committed, keys))


def text(planned: AnnotatePlan) -> str:
    """Return a plan for a terminal; the frames are estimated from the headers of the videos."""
    job, inputs, skipped, work = planned.job, planned.inputs, planned.skipped, planned.work
    frames = preflight.estimate_frames(work.to_probe, job.config)
    hours = frames * job.config.cost.frame_cpu_s / 3600
    cost = f", cost about {hours * job.config.cost.cpu_hour:.2f}" if job.config.cost.cpu_hour else ""
    return (
        f"{len(inputs)} inputs ({skipped.files} other files skipped): {len(work.unchanged)} done, "
        f"{len(work.decide)} to apply a new decision to, {len(work.to_probe)} to probe and decode\n"
        f"about {frames:,} frames, {hours:.2f} CPU-hours at {job.config.cost.frame_cpu_s:g} s per frame, "
        f"{60 * hours / job.local_decoders:.0f} minutes with {job.local_decoders} decoders{cost}\n"
        f"{_models(planned.keys)}; tables in {redact(job.out)}" + (f"\n{skipped.text()}" if skipped.text() else "")
    )


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
        with _one_thread():
            state = _State.read(inputs, keys, storage)
            _carry_out(job, state, keys, storage, LocalRunner(keys, storage, guarded=False))
        committed = Ledger.read(storage)
        write_videos(storage, committed, state.work.quarantined, inputs)
        entries = sorted(committed.entries.values(), key=lambda entry: entry.name)
        frames = [ledger.read_all(storage, entry.frames) for entry in entries if entry.frames]
        events = [ledger.read_all(storage, entry.events) for entry in entries if entry.events]
        return Tables(
            pa.concat_tables(frames).sort_by([("video_id", "ascending"), ("frame", "ascending")])
            if frames else FRAMES.empty_table(),
            pa.concat_tables(events) if events else EVENTS.empty_table(),
            schema.from_parquet(storage.read(VIDEOS_FILE)),
        )  # fmt: skip
    finally:
        storage.delete_all()


def _keys(job: AnnotateJob) -> CacheKeys:
    Detector(job.config.detector)  # Wrong weights must fail here; otherwise they would fail on a worker.
    with storage_errors_as_config_errors("a checkpoint"):
        return CacheKeys(model_set.load(job.checkpoints, job.config.ensemble), job.config)


def _models(keys: CacheKeys) -> str:
    named = [f"model {m.card.sha256[:12]} ({m.card.model.name})" for m in keys.models.members]
    return f"{keys.config.ensemble} of {', '.join(named)}" if len(named) > 1 else named[0]


@dataclass
class _State:
    """The inputs of a run, the results that are committed for them, and the work that is due."""

    inputs: Sequence[Input]
    signatures: dict[str, str]
    committed: Ledger
    work: WorkList

    @classmethod
    def read(cls, inputs: Sequence[Input], keys: CacheKeys, storage: Storage, prune: bool = False) -> _State:
        committed = Ledger.read(storage)
        committed.reconcile({video.video_id for video in inputs} if prune else None)
        signatures = stat_signatures(inputs)
        return cls(inputs, signatures, committed, plan(inputs, signatures, committed, keys))


def _run(
    job: AnnotateJob, inputs: Sequence[Input], skipped: SkippedFiles, keys: CacheKeys, storage: Storage,
    open_ray: OpenRunner, start: float,
) -> Summary:  # fmt: skip
    named = {video.video_id for video in inputs}
    state = _State.read(inputs, keys, storage, job.prune)
    frames, work_s = 0, 0.0
    not_exported: dict[str, VideoRecord] = {}
    committed = state.committed
    faults.delete_logs(storage, named)
    if state.work.to_probe or state.work.decide or job.export:
        is_local = _is_local(job, state, storage)
        if not is_local:
            retry.reset_attempts(storage)
        with (local_runner if is_local else open_ray)(job, keys, storage) as runner, _interrupted_by_sigterm():
            frames, work_s = _carry_out(job, state, keys, storage, runner)
            committed = Ledger.read(storage)
            committed.reconcile()
            not_exported = _incomplete(committed, _export(runner, committed, named, job.export))
        retry.reset_attempts(storage)
    work = state.work
    if not work.pending:
        probe_cache.delete_all(storage)
    write_videos(storage, committed, work.quarantined | not_exported, inputs, only=named if job.prune else None)
    if not job.keep_intermediate:  # A killed run may have left features of completed videos.
        finished = [(record.source_hash, record.head_key) for record, _ in committed.current().values()]
        features.delete(storage, {keys.video(source) for source, key in finished if key == keys.head(source)})
        if job.prune:
            features.delete_all(storage)
    records = (
        {video_id: record for video_id, (record, _) in committed.current().items()} | work.quarantined | not_exported
    )
    videos = [records[video.video_id] for video in inputs if video.video_id not in work.pending]
    summary = Summary(
        out=job.out, videos=videos, pending=len(work.pending), frames=frames, seconds=time.monotonic() - start,
        work_s=work_s, cost=work_s / 3600 * job.config.cost.cpu_hour,
        skipped=skipped,
    )  # fmt: skip
    write_run(storage, keys, job.command, summary)
    return summary


def _is_local(job: AnnotateJob, state: _State, storage: Storage) -> bool:
    """Return whether the job runs in this process, and log why."""
    if job.config.engine != "auto":
        return job.config.engine == "local"
    has_ray = bool(os.environ.get("RAY_ADDRESS")) or ("ray" in sys.modules and sys.modules["ray"].is_initialized())
    work = state.work
    small = len(work.to_probe) <= _LOCAL_INPUTS and len(work.decide) <= GROUP_VIDEOS
    if has_ray or not small or job.workers is not None or job.config.resources.gpu is True:
        return False
    if retry.has_marks(storage):  # An input that ended the process of an earlier run could end this one too.
        return False
    frames = preflight.estimate_frames(work.to_probe, job.config)
    if frames > LOCAL_FRAMES:
        return False
    logger.info("about %d frames: the job runs in this process, without Ray (--set engine=ray runs it on Ray)", frames)
    return True


def _carry_out(job: AnnotateJob, state: _State, keys: CacheKeys, storage: Storage, runner: Runner) -> tuple[int, float]:
    """Probe, extract and finalize the work that is due. Return the extracted frames and the CPU seconds spent."""
    cached = ProbeCache.read(storage, keys.config, state.signatures)
    try:
        probed = _probe(runner, state.work.to_probe, cached)
    except BaseException:  # also an interruption: the next run does not probe them again
        cached.write()
        raise
    state.work = plan(state.inputs, state.signatures, state.committed, keys, probed)
    with runner.reserved(sum(len(segments) for _, segments in state.work.extract.values())):
        frames, work_s = _work(_Run(keys, storage, runner, state.committed.next_generation), state.work, job)
    _withdraw(state.work, state.committed, storage)
    return frames, work_s


@dataclass(frozen=True)
class _Run:
    """The arguments that all phases of a run share."""

    keys: CacheKeys
    storage: Storage
    runner: Runner
    generation: int


def _work(run: _Run, work: WorkList, job: AnnotateJob) -> tuple[int, float]:
    """Extract and finalize in batches, limited to the phase of the job. Return frames and CPU seconds spent."""
    if job.phase == "finalize":
        work.postpone(_not_extracted(run, work.extract))
    total = 0
    packets: list[Packet] = []
    # A spectrogram needs the output folder.
    if job.phase == "all" and not job.keep_intermediate and run.runner.has_packets and not run.keys.models.uses_audio:
        packets = plan_packets(work.extract, run.keys.config.packet_frames, run.generation)
        total = _annotate_packets(run, packets, work)
    in_packets = {record.video_id for packet in packets for record, _ in packet.videos}
    batches = work.disk_bounded_batches(run.keys.config.wave_bytes, run.keys.models.embed_dim, in_packets) or [{}]
    if job.phase == "observe":
        batches = [dict(work.extract)]  # This phase writes the features of all videos.
    for number, batch in enumerate(batches):
        if job.phase != "finalize":
            reasons = _extract_audio(run, batch)
            extracted = _extract(run, {key: video for key, video in batch.items() if key not in reasons})
            work.add_spent(extracted.spent)
            reasons |= extracted.reasons
            wholly_lost = work.add_losses(extracted.losses_without(reasons))
            sources = [work.extract[video_id][0].source_hash for video_id in wholly_lost]
            features.delete(run.storage, {run.keys.video(source) for source in sources})
            work.quarantine(reasons | wholly_lost)
            total += extracted.frames
        if job.phase != "observe":
            pending = {key: work.extract[key] for key in batch if key in work.extract}
            reasons = _finalize(run, pending, work.decide if number == 0 else {})
            work.quarantine(reasons)
            if not job.keep_intermediate:
                # Videos that could not be finalized are extracted again, because their features may be faulty. The
                # phase `finalize` keeps their features, because it cannot extract.
                failed = reasons if job.phase == "finalize" else ()
                done = [record.source_hash for video_id, (record, _) in pending.items() if video_id not in failed]
                features.delete(run.storage, {run.keys.video(source) for source in done})
    work_s = sum(record.work_s or 0.0 for record, _ in work.extract.values())
    if job.phase == "observe":
        work.postpone([*work.extract, *work.decide])
    return total, work_s


def _probe(runner: Runner, inputs: Sequence[Input], cached: ProbeCache) -> dict[str, ProbeResult]:
    """Return the result of each input, by video_id. Results of a killed run are not computed again."""
    results = {video.video_id: result for video in inputs if (result := cached.get(video)) is not None}
    while missing := {video.video_id: video for video in inputs if video.video_id not in results}:
        for row in runner.probe([ProbeRequest(video).to_row() for video in missing.values()]):
            result = ProbeResult.from_row(row)
            results[result.video_id] = result
            cached.add(missing[result.video_id], result)
            if len(results) == _JUDGED_INPUTS:
                _check_share(results.values(), cached.config.limits.quarantined_share)
        if missing.keys().isdisjoint(results):
            raise AupipeError(f"probe: no result for {len(missing)} inputs; fix: run the same command again")
    return results


def _check_share(results: Collection[ProbeResult], max_share: float) -> None:
    """Check that most inputs can be annotated, because a wrong setting or a missing right concerns all.

    Raises:
        AupipeError: more than `max_share` of the inputs are quarantined.
    """
    reasons = [result.reason for result in results if result.reason]
    if len(reasons) > max_share * len(results):
        raise AupipeError(
            f"{len(reasons)} of the first {len(results)} inputs are quarantined, for example {reasons[-1]}; fix: check "
            "the inputs, or allow it with --set limits.quarantined_share=1"
        )


def _extract_audio(run: _Run, pending: Mapping[str, PendingVideo]) -> dict[str, str]:
    """Write the spectrogram of every video, if a model uses audio. Return the reasons of failed videos."""
    if not run.keys.models.uses_audio:
        return {}
    done = features.segments(run.storage)
    tasks = [
        AudioTask(run.keys.video(record.source_hash), segments[0][1].uri, video_id)
        for video_id, (record, segments) in pending.items()
    ]
    missing = [task.to_row() for task in tasks if audio_features.audio_key(task.key) not in done]
    results = map(AudioResult.from_row, run.runner.extract_audio(missing) if missing else ())
    return {result.video_id: result.error for result in results if result.error}


def _annotate_packets(run: _Run, packets: Sequence[Packet], work: WorkList) -> int:
    """Annotate and commit the videos of packets. Return the number of frames."""
    frames = 0
    missing = {record.video_id for packet in packets for record, _ in packet.videos}
    for result in map(PacketResult.from_row, run.runner.annotate_packets(packets) if packets else ()):
        if missing.isdisjoint(result.video_ids):  # a packet that was repeated, because its worker died at its end
            continue
        missing.difference_update(result.video_ids)
        frames += result.frames
        work.add_spent(result.spent)
        work.quarantine(result.reasons)
    if missing:
        raise AupipeError(f"{len(missing)} videos did not complete; fix: run the same command again")
    return frames


@dataclass
class _Extracted:
    """The results of `_extract`.

    Attributes:
        reasons: of failed videos, by video_id.
        losses: the reasons of lost segments, by video_id and key.
        spent: the costs, by video_id.
    """

    frames: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    losses: dict[str, dict[str, str]] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)

    def add(self, part: EncodedPart) -> None:
        """Add the result of a part."""
        self.frames += part.frames
        work_s, attempts = self.spent.get(part.video_id, (0.0, 1))
        self.spent[part.video_id] = (work_s + part.work_s, max(attempts, part.attempts))
        if part.error:
            self.reasons[part.video_id] = part.error
        elif part.lost:
            self.losses.setdefault(part.video_id, {})[part.key] = part.lost

    def losses_without(self, failed: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the losses of videos that did not fail."""
        return {video_id: losses for video_id, losses in self.losses.items() if video_id not in failed}


def _extract(run: _Run, pending: Mapping[str, PendingVideo]) -> _Extracted:
    """Extract every missing segment.

    A segment is complete if its files are stored, whatever workers reported, because the result rows of a worker that
    died may be lost.
    """
    found = _Extracted()
    for _ in range(run.keys.config.limits.attempts + 2):
        done = features.segments(run.storage)
        tasks = [
            SegmentTask(key, segment)
            for video_id, (_, segments) in pending.items() if video_id not in found.reasons
            for key, segment in segments if key not in done
        ]  # fmt: skip
        if not tasks:
            return found
        for part in map(EncodedPart.from_row, run.runner.extract(tasks)):
            found.add(part)
    raise AupipeError(
        f"{tasks[0].segment.uri} and {len(tasks) - 1} more segments did not complete; re-run the command to retry"
    )


def _finalize(
    run: _Run, pending: Mapping[str, PendingVideo], decide: Mapping[str, tuple[VideoRecord, Entry]]
) -> dict[str, str]:
    """Predict and decide for extracted videos, and only decide for videos whose predictions are committed.

    Return the reasons of failed videos.
    """
    groups = [*extracted_groups(run.keys, run.storage, run.generation, pending), *_committed_groups(run, decide)]
    reasons: dict[str, str] = {}
    for row in run.runner.finalize(groups) if groups else ():
        reasons |= VideosResult.from_row(row).reasons
    return reasons


def _not_extracted(run: _Run, pending: Mapping[str, PendingVideo]) -> dict[str, PendingVideo]:
    """Return the videos whose features are not all stored."""
    done = features.segments(run.storage)

    def complete(record: VideoRecord, segments: Sequence[tuple[str, Segment]]) -> bool:
        audio = not run.keys.models.uses_audio or audio_features.audio_key(run.keys.video(record.source_hash)) in done
        return audio and all(key in done for key, _ in segments)

    return {video_id: each for video_id, each in pending.items() if not complete(*each)}


def _export(runner: Runner, committed: Ledger, named: Collection[str], forms: Sequence[str]) -> dict[str, str]:
    """Export the committed tables of the videos with these ids. Return the reasons of failed videos."""
    reasons: dict[str, str] = {}
    if not forms:
        return reasons
    by_entry: dict[str, list[str]] = defaultdict(list)
    for video_id, (record, entry) in committed.current().items():
        if video_id in named and record.has_rows:
            by_entry[entry.name].append(video_id)
    rows = [ExportTask(committed.entries[name].frames, ids).to_row() for name, ids in by_entry.items()]
    for row in runner.export(rows, tuple(forms)) if rows else ():
        reasons |= VideosResult.from_row(row).reasons
    return reasons


def extracted_groups(
    keys: CacheKeys, storage: Storage, generation: int, pending: Mapping[str, PendingVideo]
) -> Iterator[Group]:
    """Yield groups of videos whose tables are written together.

    A group fills about one file; otherwise there would be many small files.
    """
    done = features.segments(storage)
    group = Group(generation)
    for _, (record, segments) in sorted(pending.items()):
        frames = sum(r.frames_expected or 0 for r in [*group.records, record])
        if group.records and (len(group.records) >= GROUP_VIDEOS or frames > keys.config.rows_per_file):
            yield group
            group = Group(generation)
        group.records.append(record)
        group.features.append([name for key, _ in segments for name in done[key]])
        audio = audio_features.audio_key(keys.video(record.source_hash))
        group.audio.append(done[audio] if keys.models.uses_audio else [])
    if group.records:
        yield group


def _committed_groups(run: _Run, decide: Mapping[str, tuple[VideoRecord, Entry]]) -> Iterator[Group]:
    by_entry = defaultdict(list)
    for record, entry in decide.values():
        by_entry[entry.name].append((record, entry))
    for pairs in by_entry.values():
        yield Group(run.generation, [record for record, _ in pairs], committed=pairs[0][1].frames)


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


def _withdraw(work: WorkList, committed: Ledger, storage: Storage) -> None:
    """Commit the quarantined records of videos that earlier runs annotated, which removes their old rows."""
    current = committed.current()
    withdrawn = [record for video_id, record in sorted(work.quarantined.items()) if video_id in current]
    if withdrawn:
        # A record without keys makes the next run retry a video that failed because of an internal error.
        records = [
            replace(record, fingerprint="", source_hash="", head_key="", decide_key="")
            if faults.is_internal(record.reason)
            else record
            for record in withdrawn
        ]
        generation = Ledger.read(storage).next_generation
        ledger.commit(storage, FRAMES.empty_table(), EVENTS.empty_table(), records, generation, rows_per_file=1)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM interrupt the block as Ctrl-C does, so that what is done is committed before the process ends."""
    if threading.current_thread() is not threading.main_thread():  # Only the main thread can set a handler.
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread during the block, because several threads could add in another order."""
    before = set_torch_threads(1)
    try:
        yield
    finally:
        set_torch_threads(before)
