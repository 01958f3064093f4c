"""The stages of an annotation on Ray Data; `annotation.annotator` is the job that they serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.util.metrics import Counter

from aupipe.annotation import model_stages, packets
from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.encode import set_torch_threads
from aupipe.annotation.model_stages import PARTS_PER_BATCH, Export, Group
from aupipe.annotation.packets import Packet, PacketResult
from aupipe.annotation.postprocess import Decision
from aupipe.annotation.runner import Runner
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import Decode, Probe, ProbePacket, Row, SegmentTask
from aupipe.errors import ConfigError, EnvironmentFailure, one_line
from aupipe.models import default_models
from aupipe.pipelines.encoder_actors import EncoderActors, started
from aupipe.pipelines.path_visibility import check_visible_on_all_nodes
from aupipe.pipelines.progress import Progress
from aupipe.pipelines.session import (
    Pool,
    await_node,
    device_of,
    gpus_per_worker,
    label_selector_for,
    reserved_resources,
    room,
    session,
)
from aupipe.storage import TRANSIENT, Storage

# Reading an input may fail while storage is away: work is retried after 1, 2, 4 … 32 s. All else stops the job.
_RETRIES = 8
# How processes that live long get memory. Arrow's own allocator keeps more of what was freed; the other settings are
# for glibc (other C libraries ignore them). Large pieces are given back, because parts and tables of 10 MB that come
# and go would leave holes, more every hour. But encoders keep what they have, up to the 32 MB a piece that glibc
# allows: a layer's memory would otherwise be fetched anew, page by page, for the next layer, a third more time.
RELEASE_MEMORY_ENV = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20)}
RETAIN_MEMORY_ENV = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
# The work of a task of probing: a packet of videos of which it probes as many as it can in this time. The results of a
# task arrive at its end, so longer tasks would look like a cluster without progress. Ray Data looks for finished tasks
# every 0.1 s, and needs two looks for each: shorter tasks would wait for that time again and again.
PROBES_PER_TASK, _PROBE_S = 64, 5.0
# Tasks of an actor at a time: while one is executed, the next one waits, so that the actor does not wait for Ray Data.
# With more of them, actors would be less equally busy at the end.
_TASKS_PER_ACTOR = 2
# Frames at most that the driver finalizes itself, because a new process takes as long to start.
FINALIZED_HERE = 30_000
_TASKS_PER_WORKER = 1000  # then a decoding process is replaced, because libraries leak


class ExtractAudio(model_stages.ExtractAudio):
    """The stage on a worker with one CPU."""

    def __call__(self, row: Row) -> Row:
        import torch  # the spectrogram is torch's

        torch.set_num_threads(1)
        return super().__call__(row)


class Encode(model_stages.Encode):
    """The stage in an actor with one CPU; the models come from the object store."""

    def __init__(self, models: ray.ObjectRef, storage: Storage, batch_size: int, device: str) -> None:
        super().__init__(ray.get(models), storage, batch_size, device)
        set_torch_threads(1)  # one CPU is what the actor has, and more threads could sum in another order


class Extract(model_stages.Extract):
    """The stage in an actor with one CPU."""

    def __init__(self, decode: Decode, encode: Callable[[], Encode], storage: Storage) -> None:
        super().__init__(decode, encode(), storage)


class Finalize(model_stages.Finalize):
    """The stage in an actor with one CPU; the heads come from the object store."""

    def __init__(self, heads: ray.ObjectRef, storage: Storage, config: AnnotateConfig, decision: Decision) -> None:
        super().__init__(ray.get(heads), storage, config, decision)
        set_torch_threads(1)


class AnnotatePacket(packets.AnnotatePacket):
    """The stage in an actor with one CPU; the models come from the object store."""

    def __init__(
        self, models: ray.ObjectRef, storage: Storage, config: AnnotateConfig, encoders: Sequence[ActorHandle]
    ) -> None:
        keys = CacheKeys(ray.get(models), config)
        elsewhere = EncoderActors(encoders, keys.models.embed_dim) if encoders else None
        super().__init__(keys, storage, elsewhere=elsewhere)
        set_torch_threads(1)


@dataclass(frozen=True)
class RayRunner:
    """Runs the stages as Ray Data executions.

    Attributes:
        models, heads: references of a `ModelSet`, and of it without encoders.
        workers: segments decoded at a time; None: one per CPU of the cluster, less those of encoders on CPUs.
    """

    keys: CacheKeys
    storage: Storage
    models: ray.ObjectRef
    heads: ray.ObjectRef
    workers: int | None

    @property
    def decoders(self) -> int:
        encoders = 0 if self._gpus else self.encoders
        return self.workers or max(1, room("decode", self.keys.config.resources)["CPU"] - encoders)

    @property
    def encoders(self) -> int:
        return self.keys.config.encoders or self._gpus

    @property
    def _gpus(self) -> int:
        """The number of GPUs of an encoder."""
        return gpus_per_worker(self.keys.config.resources)

    @property
    def on_cpus(self) -> dict[str, Any]:
        """Options of tasks that need a CPU."""
        return {"num_cpus": 1, "label_selector": label_selector_for("decode", self.keys.config.resources)}

    def probe(self, rows: Sequence[Row]) -> Iterator[Row]:
        stage = ProbePacket(Probe(self.keys.config, self.storage), _PROBE_S)
        size = min(PROBES_PER_TASK, -(-len(rows) // self.decoders))
        tasks = ProbePacket.rows(rows, size)
        probed = ray.data.from_items(tasks, override_num_blocks=len(tasks)).flat_map(
            stage, **self.on_cpus, compute=TaskPoolStrategy(size=self.decoders)
        )
        with self._reserved(self._decoders(len(tasks))):
            yield from _counted(self._watched("probe", probed), "probe", len(rows))

    def annotate_packets(self, packets: Sequence[Packet]) -> Iterator[Row]:
        options = self._encoder_resources | {"runtime_env": {"env_vars": RETAIN_MEMORY_ENV}}
        config = self.keys.config
        with started(self.encoders, options, self.models, config.batch_size, device_of(config.resources)) as encoders:
            yield from self._annotated(packets, encoders)

    @property
    def _encoder_resources(self) -> dict[str, Any]:
        """Options of an encoder. One with a GPU mostly waits for it."""
        pool: Pool = "infer" if self._gpus else "decode"
        selector = label_selector_for(pool, self.keys.config.resources)
        return {"num_cpus": 0 if self._gpus else 1, "num_gpus": self._gpus, "label_selector": selector}

    def _annotated(self, packets: Sequence[Packet], encoders: Sequence[ActorHandle]) -> Iterator[Row]:
        frames, items = 0, []
        for packet in packets:  # They are made one by one, because their rows are much smaller.
            items.append(packet.to_row())
            frames += packet.frames
        rows = ray.data.from_items(items, override_num_blocks=len(items)).map(
            AnnotatePacket, fn_constructor_args=(self.models, self.storage, self.keys.config, encoders),
            **self.on_cpus, runtime_env={"env_vars": RETAIN_MEMORY_ENV},
            compute=self._actors(len(items)),
        )  # fmt: skip
        del items
        progress = Progress("annotate", frames, "frames", shown=False)
        for row in self._watched("annotate", rows):
            progress.add(PacketResult.from_row(row).frames)
            yield row
        progress.finish()

    def extract_audio(self, rows: Sequence[Row]) -> Iterable[Row]:
        stage = ExtractAudio(self.keys.config, self.storage)
        pool = TaskPoolStrategy(size=self.decoders)
        videos = ray.data.from_items(list(rows), override_num_blocks=len(rows))
        return self._watched("audio", videos.map(stage, **self.on_cpus, compute=pool))

    def extract(self, tasks: Sequence[SegmentTask]) -> Iterator[Row]:
        progress = Progress("observe", sum(task.segment.frames for task in tasks), "frames", shown=False)
        ended = Counter("aupipe_segments", "Segments that are extracted or quarantined.", ("outcome",))
        # Segments that need more memory have workers of their own, because others would have to reserve it too.
        for large in (True, False):
            own = [task for task in tasks if bool(task.memory_bytes) == large]
            if not own:
                continue
            extracted = self._decoded_and_encoded(own) if self.encoders else self._extracted(own)
            for row in self._watched("observe", extracted):
                if row["last"]:
                    ended.inc(tags={"outcome": "set aside" if row["error"] else "done"})
                progress.add(row["frames"])
                yield row
        progress.finish()

    def _extracted(self, tasks: Sequence[SegmentTask]) -> ray.data.Dataset:
        """Return the execution of both stages in the same processes, so that all CPUs are busy until the end."""
        config = self.keys.config
        stages = (
            Decode(config, self.storage, self.keys.models.templates),
            partial(Encode, self.models, self.storage, config.batch_size, "cpu"),
            self.storage,
        )
        rows = Extract.rows(tasks)
        return ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
            Extract, fn_constructor_args=stages, **self.on_cpus, memory=_memory(tasks),
            runtime_env={"env_vars": RETAIN_MEMORY_ENV},
            compute=self._actors(len(rows)),
        )  # fmt: skip

    def _actors(self, tasks: int) -> ActorPoolStrategy:
        return ActorPoolStrategy(size=min(self.decoders, tasks), max_tasks_in_flight_per_actor=_TASKS_PER_ACTOR)

    def _decoded_and_encoded(self, tasks: Sequence[SegmentTask]) -> ray.data.Dataset:
        """Return the execution of the stages in different processes, some of which have a GPU."""
        config = self.keys.config
        # Enough blocks to share the work out, few enough for many tiny clips.
        blocks = min(len(tasks), max(64, 16 * self.decoders))
        parts = ray.data.from_items([task.to_row() for task in tasks], override_num_blocks=blocks).flat_map(
            Decode(config, self.storage, self.keys.models.templates),
            **self.on_cpus, memory=_memory(tasks), compute=TaskPoolStrategy(size=self.decoders),
            max_calls=_TASKS_PER_WORKER, runtime_env={"env_vars": RELEASE_MEMORY_ENV},
        )  # fmt: skip
        return parts.map_batches(
            Encode, fn_constructor_args=(self.models, self.storage, config.batch_size, device_of(config.resources)),
            batch_size=PARTS_PER_BATCH, batch_format="pyarrow", **self._encoder_resources,
            compute=ActorPoolStrategy(size=self.encoders), runtime_env={"env_vars": RETAIN_MEMORY_ENV},
        )  # fmt: skip

    def finalize(self, groups: Sequence[Group]) -> Iterator[Row]:
        videos, frames, items = 0, 0, []
        for group in groups:
            items.append(group.to_row())
            videos += len(group.records)
            frames += sum(record.frames_expected or 0 for record in group.records)
        if frames <= FINALIZED_HERE and self._heads_are_light:
            keys = self.keys
            rows: Iterator[Row] = map(
                model_stages.Finalize(keys.models.heads, self.storage, keys.config, keys.decision), items
            )
        else:
            rows = self._watched("finalize", self._finalized(items))
        yield from _counted(rows, "finalize", videos, _videos_of)

    @property
    def _heads_are_light(self) -> bool:
        """True if the heads see one frame at a time and no sound: finalizing then takes 0.1 ms per frame."""
        return self.keys.models.window_length == 1 and not self.keys.models.uses_audio

    def _finalized(self, items: Sequence[Row]) -> ray.data.Dataset:
        return ray.data.from_items(items, override_num_blocks=len(items)).map(
            Finalize, fn_constructor_args=(self.heads, self.storage, self.keys.config, self.keys.decision),
            **self.on_cpus, compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(self.decoders, len(items)))),
            runtime_env={"env_vars": RELEASE_MEMORY_ENV},
        )  # fmt: skip

    def export(self, rows: Sequence[Row], forms: tuple[str, ...]) -> Iterator[Row]:
        videos = ray.data.from_items(list(rows), override_num_blocks=len(rows))
        exported = self._watched("export", videos.map(Export(self.storage, forms), **self.on_cpus))
        yield from _counted(exported, "export", sum(_videos_of(row) for row in rows), _videos_of)

    def _watched(self, stage: str, rows: ray.data.Dataset) -> Iterator[Row]:
        """Yield the rows of an execution as they come.

        Raises:
            EnvironmentFailure: no result came for `limits.no_progress_s`.
        """
        try:
            yield from rows.iter_rows()
        except ExecutionTimeoutError as error:
            nodes = sum(node["Alive"] for node in ray.nodes())
            waited = one_line(error).partition("Operators still running:")[2].partition("If this is expected")[0]
            raise EnvironmentFailure(
                f"{stage}: no result for {self.keys.config.limits.no_progress_s:g} s, with {nodes} nodes alive; "
                f"waited for{waited.rstrip()}; fix: check the cluster (`ray status`) and run the same command again, "
                "or raise --set limits.no_progress_s"
            ) from error

    def reserved(self, segments: int) -> AbstractContextManager[None]:
        return self._reserved(self.resource_bundles(segments))

    @contextmanager
    def _reserved(self, bundles: Sequence[tuple[Pool, dict[str, int]]]) -> Iterator[None]:
        resources = self.keys.config.resources
        with reserved_resources(bundles, resources):
            if bundles:
                await_node("decode", resources)
            yield

    def resource_bundles(self, segments: int) -> list[tuple[Pool, dict[str, int]]]:
        """Return the bundles of resources of so many segments: a CPU each, as far as so many are decoded at a time,
        and the encoders.
        """
        if not segments:
            return []
        gpus = self._gpus
        encoder: tuple[Pool, dict[str, int]] = ("infer", {"GPU": gpus, "CPU": 1}) if gpus else ("decode", {"CPU": 1})
        return [*self._decoders(segments), *[encoder] * self.encoders]

    def _decoders(self, tasks: int) -> list[tuple[Pool, dict[str, int]]]:
        return [("decode", {"CPU": 1})] * min(self.decoders, tasks)


@contextmanager
def ray_runner(job: AnnotateJob, keys: CacheKeys, storage: Storage) -> Iterator[Runner]:
    """Connect to Ray for the length of the block.

    Raises:
        ConfigError: a path is not visible on every node, or the cluster has no CPU to decode and `--workers` is not
            given.
    """
    with session(job.config.resources, num_cpus=job.local_decoders + (job.config.encoders or 0)):
        # The package's own models are wherever the package is, and only the driver reads them.
        own = [path for path in job.checkpoints if path not in default_models.OWN]
        check_visible_on_all_nodes(job.out, [*job.inputs, *own])
        _configure(job.config)
        cpus = room("decode", job.config.resources)["CPU"]
        encoders = 0 if gpus_per_worker(job.config.resources) else job.config.encoders or 0
        if job.workers is None and cpus <= encoders:
            raise ConfigError(
                f"encoders={encoders} take all CPUs of the cluster ({cpus}), and none is left to decode; fix: use "
                "fewer, or say with --workers how many more to ask for"
                if cpus
                else "the cluster has no CPU yet; say how many to ask for with --workers"
            )
        yield RayRunner(keys, storage, ray.put(keys.models), ray.put(keys.models.heads), job.workers)


def _configure(config: AnnotateConfig) -> None:
    """Set what Ray Data needs to know of the stages."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 8 * 2**20  # full parts of segments are larger, and flow on one by one
    if config.object_store_bytes is not None:
        options = context.execution_options
        options.resource_limits = options.resource_limits.copy(object_store_memory=config.object_store_bytes)
    context.execution_no_progress_timeout_s = config.limits.no_progress_s
    context.retried_map_errors, context.max_map_retries = list(TRANSIENT), _RETRIES


def _memory(tasks: Sequence[SegmentTask]) -> int | None:
    """Return the memory that a worker of these segments reserves, in bytes; None: none.

    It is at most that of the largest node, because Ray would wait for a larger one for ever.
    """
    needed = max(task.memory_bytes for task in tasks)
    if not needed:
        return None
    largest = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    return min(needed, largest or needed)


def _counted(
    rows: Iterable[Row], stage: str, videos: int, videos_of: Callable[[Row], int] = lambda row: 1
) -> Iterator[Row]:
    progress = Progress(stage, videos, "videos", shown=False)
    for row in rows:
        progress.add(videos_of(row))
        yield row
    progress.finish()


def _videos_of(row: Row) -> int:
    return len(json.loads(row["video_ids"]))
