"""The phases of an annotation on Ray Data: probe, listen, observe, finalize. Each does what is not there yet."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.util.metrics import Counter

from aupipe.annotation import audio_features, features
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input
from aupipe.annotation.ledger import Entry, Ledger, Record
from aupipe.annotation.segments import Segment
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.work_plan import PendingVideo
from aupipe.errors import AupipeError
from aupipe.pipelines.annotate_decode import Decode, Probe, SegmentTask, read_probe
from aupipe.pipelines.annotate_encode import Encode, ExtractAudio
from aupipe.pipelines.annotate_finalize import Export, Finalize, Group
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import Pool, device_of, gpus_per_worker, label_selector_for
from aupipe.storage import TRANSIENT, Storage

_GROUP_VIDEOS = 64  # videos finalized by one task, at most
_PARTS_PER_BATCH = 4  # parts of segments that the encoder packs together
# Reading an input may fail while storage is away: work is taken up again after 1, 2, 4 … 32 s. All else stops the job.
_RETRIES = 8
# How processes that live long get memory: Arrow's own way keeps more of what was freed, and the rest is said to glibc
# (other C libraries pass it over). Large pieces are given back: parts and tables of 10 MB that come and go would leave
# holes, more every hour. But encoders keep what they have, up to the 32 MB a piece that glibc allows: a layer's would
# go and be fetched anew, page by page, for the next layer, a third more time.
RELEASE_MEMORY_ENV = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20)}
RETAIN_MEMORY_ENV = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
_TASKS_PER_WORKER = 1000  # then a decoding process is replaced: libraries leak


@dataclass(frozen=True)
class Run:
    """What every phase of a run needs."""

    keys: CacheKeys
    storage: Storage
    models: ray.ObjectRef  # Ensemble
    heads: ray.ObjectRef  # of it
    generation: int
    workers: int | None  # segments decoded at a time; None: one a CPU of the cluster, less those of the encoders

    @property
    def decoders(self) -> int:
        return self.workers or max(1, int(ray.cluster_resources().get("CPU", 0)) - self.keys.config.encoders)

    @property
    def on_cpus(self) -> dict[str, Any]:
        """Where Ray shall run what needs a CPU."""
        return {"num_cpus": 1, "label_selector": label_selector_for("decode", self.keys.config.resources)}


def configure(config: AnnotateConfig) -> None:
    """Settings of Ray Data for the phases."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 8 * 2**20  # full parts of segments are larger, and flow on one by one
    if config.object_store_bytes is not None:
        options = context.execution_options
        options.resource_limits = options.resource_limits.copy(object_store_memory=config.object_store_bytes)
    context.retried_map_errors, context.max_map_retries = list(TRANSIENT), _RETRIES


def probe_all(run: Run, inputs: Sequence[Input]) -> list[tuple[Input, dict[str, Any]]]:
    """What each input is, or why it cannot be done."""
    if not inputs:
        return []
    rows = ray.data.from_items([{"input": json.dumps(asdict(video))} for video in inputs])
    said = rows.map(Probe(run.keys.config, run.storage), **run.on_cpus).take_all()
    by_id = dict(read_probe(row) for row in said)
    return [(video, by_id[video.video_id]) for video in inputs]


def resource_bundles(run: Run, due: Mapping[str, PendingVideo]) -> list[tuple[Pool, dict[str, int]]]:
    """What observing these videos takes: a CPU a segment, as far as so many are decoded at a time, and the
    encoders.
    """
    count = min(run.decoders, sum(len(segments) for _, segments in due.values()))
    if not count:
        return []
    gpus = gpus_per_worker(run.keys.config.resources)
    decoder: tuple[Pool, dict[str, int]] = ("decode", {"CPU": 1})
    return [decoder] * count + [("infer", {"GPU": gpus, "CPU": 1}) if gpus else decoder] * run.keys.config.encoders


def extract_audio(run: Run, due: Mapping[str, PendingVideo]) -> dict[str, str]:
    """Leave the sound of every video, where a model listens. Returns why of those that cannot be done."""
    if not run.keys.models.uses_audio:
        return {}
    there = features.segments(run.storage)
    rows = [
        {"key": run.keys.video(record["content"]), "uri": segments[0][1].uri, "video_id": video_id}
        for video_id, (record, segments) in due.items()
    ]
    missing = [row for row in rows if audio_features.audio_key(row["key"]) not in there]
    if not missing:
        return {}
    heard = ray.data.from_items(missing).map(
        ExtractAudio(run.keys.config, run.storage), **run.on_cpus, compute=TaskPoolStrategy(size=run.decoders)
    )
    return {row["video_id"]: row["error"] for row in heard.iter_rows() if row["error"]}


def extract(run: Run, due: Mapping[str, PendingVideo]) -> tuple[int, dict[str, str]]:
    """Observe every segment that is not there yet. Returns the frames done, and why of the videos that cannot be done.

    What is done is what is there afterwards, whatever workers reported: rows of one that died may be lost on the way.
    """
    reasons: dict[str, str] = {}
    frames = 0
    for _ in range(run.keys.config.limits.attempts + 2):
        done = features.segments(run.storage)
        tasks = [
            SegmentTask(key, segment)
            for video_id, (_, segments) in due.items() if video_id not in reasons
            for key, segment in segments if key not in done
        ]  # fmt: skip
        if not tasks:
            return frames, reasons
        frames += _observe_once(run, tasks, due, reasons)
    raise AupipeError(
        f"{tasks[0].segment.uri} and {len(tasks) - 1} more segments came to no end; give the command again"
    )


def _observe_once(
    run: Run, tasks: Sequence[SegmentTask], due: Mapping[str, PendingVideo], reasons: dict[str, str]
) -> int:
    config = run.keys.config
    gpus = gpus_per_worker(config.resources)
    # Enough blocks to share the work out, few enough for many tiny clips.
    blocks = min(len(tasks), max(64, 16 * run.decoders))
    parts = ray.data.from_items([task.to_row() for task in tasks], override_num_blocks=blocks).flat_map(
        Decode(config, run.storage, run.keys.models.templates),
        **run.on_cpus, compute=TaskPoolStrategy(size=run.decoders), max_calls=_TASKS_PER_WORKER,
        runtime_env={"env_vars": RELEASE_MEMORY_ENV},
    )  # fmt: skip
    encoded = parts.map_batches(
        Encode, fn_constructor_args=(run.models, run.storage, config.batch_size, device_of(config.resources)),
        batch_size=_PARTS_PER_BATCH, batch_format="pyarrow", num_cpus=1, num_gpus=gpus,
        label_selector=label_selector_for("infer" if gpus else "decode", config.resources),
        compute=ActorPoolStrategy(size=config.encoders), runtime_env={"env_vars": RETAIN_MEMORY_ENV},
    )  # fmt: skip
    progress = Progress("observe", sum(task.segment.frames for task in tasks), "frames")
    frames = 0
    ended = Counter("aupipe_segments", "Segments that are observed or set aside.", ("outcome",))
    for row in encoded.iter_rows():
        if row["last"]:
            ended.inc(tags={"outcome": "set aside" if row["error"] else "done"})
        frames += row["frames"]
        progress.add(row["frames"])
        record, _ = due[row["video_id"]]
        record["work_s"] = record.get("work_s", 0.0) + row["work_s"]
        record["attempts"] = max(record["attempts"], row["attempts"])
        if row["error"]:
            reasons[row["video_id"]] = row["error"]
    progress.finish()
    return frames


def finalize(run: Run, due: Mapping[str, PendingVideo], decide: Mapping[str, tuple[Record, Entry]]) -> dict[str, str]:
    """Head and decide for what was observed, decide alone for what only other thresholds touch. Returns why of the
    videos that cannot be done.
    """
    groups = [*_observed_groups(run, due), *_committed_groups(run, decide)]
    reasons: dict[str, str] = {}
    if not groups:
        return reasons
    rows = ray.data.from_items([group.to_row() for group in groups], override_num_blocks=len(groups)).map(
        Finalize, fn_constructor_args=(run.heads, run.storage, run.keys.config, run.keys.decision),
        **run.on_cpus, compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(run.decoders, len(groups)))),
        runtime_env={"env_vars": RELEASE_MEMORY_ENV},
    )  # fmt: skip
    progress = Progress("finalize", sum(len(group.records) for group in groups), "videos")
    for row in rows.iter_rows():
        progress.add(len(json.loads(row["video_ids"])))
        reasons |= json.loads(row["reasons"])
    progress.finish()
    return reasons


def unobserved(run: Run, due: Mapping[str, PendingVideo]) -> dict[str, PendingVideo]:
    """The videos of which not all that finalize needs is there."""
    done = features.segments(run.storage)

    def there(record: Record, segments: Sequence[tuple[str, Segment]]) -> bool:
        heard = not run.keys.models.uses_audio or audio_features.audio_key(run.keys.video(record["content"])) in done
        return heard and all(key in done for key, _ in segments)

    return {video_id: each for video_id, each in due.items() if not there(*each)}


def export(run: Run, books: Ledger, named: Collection[str], forms: Sequence[str]) -> dict[str, str]:
    """Write the committed tables of the videos with these ids in other forms. Returns why of those that cannot be."""
    reasons: dict[str, str] = {}
    if not forms:
        return reasons
    by_entry: dict[str, list[str]] = defaultdict(list)
    for video_id, (record, entry) in books.current().items():
        if video_id in named and record["status"] in ("ok", "partial"):
            by_entry[entry.name].append(video_id)
    rows = [
        {"files": json.dumps(books.entries[name].frames), "video_ids": json.dumps(ids)}
        for name, ids in by_entry.items()
    ]
    if rows:
        made = ray.data.from_items(rows).map(Export(run.storage, tuple(forms)), **run.on_cpus)
        progress = Progress("export", sum(map(len, by_entry.values())), "videos")
        for row in made.iter_rows():
            progress.add(len(json.loads(row["video_ids"])))
            reasons |= json.loads(row["reasons"])
        progress.finish()
    return reasons


def _observed_groups(run: Run, due: Mapping[str, PendingVideo]) -> Iterator[Group]:
    """Videos whose tables go together: about a file's worth, since files must not be many and small."""
    done = features.segments(run.storage)
    group = Group(run.generation)
    for _, (record, segments) in sorted(due.items()):
        frames = sum(r["frames_expected"] for r in group.records) + record["frames_expected"]
        if group.records and (len(group.records) >= _GROUP_VIDEOS or frames > run.keys.config.rows_per_file):
            yield group
            group = Group(run.generation)
        group.records.append(record)
        group.observed.append([name for key, _ in segments for name in done[key]])
        group.sounds.append(
            done[audio_features.audio_key(run.keys.video(record["content"]))] if run.keys.models.uses_audio else []
        )
    if group.records:
        yield group


def _committed_groups(run: Run, decide: Mapping[str, tuple[Record, Entry]]) -> Iterator[Group]:
    by_entry = defaultdict(list)
    for record, entry in decide.values():
        by_entry[entry.name].append((record, entry))
    for pairs in by_entry.values():
        yield Group(run.generation, [record for record, _ in pairs], committed=pairs[0][1].frames)
