"""The annotation job: plan, observe, finalise, on Ray Data. What is committed is not done again."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from aupipe.annotation import ensemble, ledger, observed, sound
from aupipe.annotation.keys import Keys, stamp
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.plan import Input, find_inputs
from aupipe.annotation.schema import EVENTS, FRAMES
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.summary import Summary, write_run, write_videos
from aupipe.annotation.worklist import WorkList, add_probed, triage
from aupipe.faces.detect import Detector
from aupipe.pipelines.annotate_finalise import Finalise, Group
from aupipe.pipelines.annotate_observe import Decode, Encode, Listen, Probe, SegmentTask, read_probe
from aupipe.pipelines.claim import claim
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import gpus_per_worker, session
from aupipe.storage import Storage

_GROUP_VIDEOS = 64  # videos finalised by one task, at most
_PARTS_PER_BATCH = 4  # parts of segments that the encoder packs together


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
        with session(num_cpus=job.local_decoders + 1):  # one more for the encoder, which mostly waits for decoders
            add_probed(work, _probe(to_probe, job.config), stamps, books, keys)
            shared = ray.put(keys.models)
            _listen(work, keys, job)
            frames = _observe(work, keys, shared, job)
            _finalise(work, keys, shared, job, books.next_generation)
        _withdraw(work, books, storage)
        books = Ledger.read(storage)
        books.reconcile()
    if not job.keep_intermediate:
        segments = {key for _, segments in work.observe.values() for key, _ in segments}
        sounds = {keys.sound(record["fingerprint"]) for record, _ in work.observe.values()}
        observed.delete(storage, segments | sounds)
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


def _probe(inputs: Sequence[Input], config: AnnotateConfig) -> list[tuple[Input, dict]]:
    if not inputs:
        return []
    rows = ray.data.from_items([{"uri": v.uri, "video_id": v.video_id} for v in inputs]).map(Probe(config), num_cpus=1)
    by_id = {row["video_id"]: read_probe(row["result"]) for row in rows.take_all()}
    return [(video, by_id[video.video_id]) for video in inputs]


def _decoders(job: AnnotateJob) -> int:
    """How many segments are decoded at a time: as asked, or one a CPU of the cluster, one CPU left to the encoder."""
    return job.workers or max(1, int(ray.cluster_resources().get("CPU", 0)) - 1)


def _observe(work: WorkList, keys: Keys, models: ray.ObjectRef, job: AnnotateJob) -> int:
    """Observe every segment that is not there yet; quarantine videos that fail. Returns the frames done."""
    done = observed.segments(Storage(job.out))
    tasks = [SegmentTask(key, s) for _, segments in work.observe.values() for key, s in segments if key not in done]
    if not tasks:
        return 0
    gpus = gpus_per_worker(job.config.resources)
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 32 * 2**20  # a part of a segment is at most 19 MB: parts flow on one by one
    blocks = min(
        len(tasks), max(64, 16 * _decoders(job))
    )  # enough to share the work out, few enough for many tiny clips
    parts = ray.data.from_items([task.to_row() for task in tasks], override_num_blocks=blocks).flat_map(
        Decode(job.config, keys.models.templates),
        num_cpus=1, compute=TaskPoolStrategy(size=_decoders(job)),
    )  # fmt: skip
    encoded = parts.map_batches(
        Encode, fn_constructor_args=(models, job.out, job.config.batch_size, bool(gpus)),
        batch_size=_PARTS_PER_BATCH, batch_format="pyarrow", num_cpus=1, num_gpus=gpus,
        compute=ActorPoolStrategy(size=1),
    )  # fmt: skip
    progress = Progress("observe", sum(_owned(task) for task in tasks), "frames")
    frames = 0
    spent: dict[str, float] = defaultdict(float)
    for row in encoded.iter_rows():
        frames += row["frames"]
        progress.add(row["frames"])
        spent[row["video_id"]] += row["work_s"]
        if row["error"] and row["video_id"] in work.observe:
            work.quarantine(row["video_id"], row["error"])
    progress.finish()
    for video_id, (record, _) in work.observe.items():
        record["work_s"] = spent[video_id]
    return frames


def _listen(work: WorkList, keys: Keys, job: AnnotateJob) -> None:
    """Leave the sound of every video that is to be observed, where a model listens."""
    storage = Storage(job.out)
    there = set(storage.names(observed.FOLDER)) if keys.models.hears else set()
    rows = [
        {"key": keys.sound(record["fingerprint"]), "uri": record["uri"], "video_id": video_id}
        for video_id, (record, _) in work.observe.items()
    ]
    missing = [row for row in rows if row["key"] and sound.name_of(row["key"]) not in there]
    if not missing:
        return
    heard = ray.data.from_items(missing, override_num_blocks=len(missing)).map(
        Listen(job.out), num_cpus=1, compute=TaskPoolStrategy(size=_decoders(job))
    )
    for row in heard.iter_rows():
        if row["error"]:
            work.quarantine(row["video_id"], row["error"])


def _finalise(work: WorkList, keys: Keys, models: ray.ObjectRef, job: AnnotateJob, generation: int) -> None:
    """Head and decide for what was observed, decide alone for what only other thresholds touch."""
    groups = list(_groups(work, keys, Storage(job.out), job.config.rows_per_file, generation))
    if not groups:
        return
    rows = ray.data.from_items([group.to_row() for group in groups], override_num_blocks=len(groups)).map(
        Finalise, fn_constructor_args=(models, job.out, job.config, keys.decision),
        num_cpus=1, compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(_decoders(job), len(groups)))),
    )  # fmt: skip
    progress = Progress("finalise", sum(len(group.records) for group in groups), "videos")
    for row in rows.iter_rows():
        progress.add(len(json.loads(row["video_ids"])))
    progress.finish()


def _groups(work: WorkList, keys: Keys, storage: Storage, rows_per_file: int, generation: int) -> Iterator[Group]:
    """Videos whose tables go together: about a file's worth, since files must not be many and small."""
    done = observed.segments(storage)
    group = Group([], [], [], [], generation)
    for _, (record, segments) in sorted(work.observe.items()):
        frames = sum(r["frames_expected"] for r in group.records)
        if group.records and (
            len(group.records) >= _GROUP_VIDEOS or frames + record["frames_expected"] > rows_per_file
        ):
            yield group
            group = Group([], [], [], [], generation)
        group.records.append(record)
        group.observed.append([name for key, _ in segments for name in done[key]])
        group.sounds.append(keys.sound(record["fingerprint"]))
    if group.records:
        yield group
    by_entry = defaultdict(list)
    for record, entry in work.decide.values():
        by_entry[entry.name].append((record, entry))
    for pairs in by_entry.values():
        yield Group(
            [record for record, _ in pairs], [[] for _ in pairs], [""] * len(pairs), pairs[0][1].frames, generation
        )


def _owned(task: SegmentTask) -> int:
    """Frames that a segment owns."""
    segment = task.segment
    stop = segment.span.first + segment.span.expected if segment.own_stop is None else segment.own_stop
    return stop - segment.own_start
