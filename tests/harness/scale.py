"""The driver of annotate.py on an archive of any size: its memory, its requests and its seconds in each phase.

Listing, plan, ledger, marks and commits are those of a real job. Only workers are replaced: probing returns what it
would find in such a file, decoding costs nothing, and a video has one row instead of one row per frame. Files have the
sizes of videos; on disk they take no room, and on S3 they have one byte, and their sizes are changed in the listing.
Files are not synced, because workers would wait for this disk most of the time. `seconds` and `cpu_s` are the driver's
alone, which a cluster of any size waits for; `worker_s` is the time for which the driver waits for workers.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from aupipe.annotation import features, input_search, ledger, retry
from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.annotator import annotate
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Input
from aupipe.annotation.model_set import load
from aupipe.annotation.model_stages import EncodedPart, Group, VideosResult
from aupipe.annotation.packets import Packet, PacketResult
from aupipe.annotation.pending import pending_video
from aupipe.annotation.runner import Runner
from aupipe.annotation.schema import EVENTS, FEATURES, FRAMES, to_parquet
from aupipe.annotation.segments import cut_into_segments
from aupipe.annotation.settings import AnnotateConfig
from aupipe.annotation.stages import ProbeRequest, ProbeResult, Row, SegmentTask
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import AupipeError, ConfigError
from aupipe.faces.detect import Detector
from aupipe.media.probe import VideoInfo
from aupipe.models import default_models
from aupipe.storage import Storage, objects_below
from harness.proxy import Proxy, proxying
from harness.s3_server import S3Server

RUNS = ("first", "unchanged")
_FPS, _KEY_FRAMES = 25, 50  # frames per second, and frames from one key frame to the next
_FRAME_BYTES = 5_000  # of a frame in a file: 1 Mbit/s
_SIZE_STEP = 7919  # bytes from the size of one file to that of the next one
_PER_FOLDER = 1000  # files of a folder of the archive
LATENCY_S = 0.02  # added to each request to S3
_WORKERS_ON_S3 = 16


def measure(clips: int, seconds: float, videos: int, minutes: float, remote: bool) -> Iterator[dict[str, Any]]:
    """Yield a line for each phase of a first run and of a second run of the unchanged archive, and their sums.

    Args:
        clips, seconds: number and length of short files.
        videos, minutes: number and length of long files beside them.
        remote: archive and tables are on a local S3 server behind a latency of `LATENCY_S`; otherwise on disk.

    Raises:
        ConfigError: there is no file.
        AupipeError: the job failed.
    """
    if clips + videos < 1:
        raise ConfigError("no file (at least one is required); fix: give --clips or --videos")
    with tempfile.TemporaryDirectory(prefix="scale") as name, ExitStack() as stack:
        server, proxy = None, None
        root = name
        if remote:
            server = S3Server(Path(name))
            stack.callback(server.kill)
            proxy = stack.enter_context(proxying({}, LATENCY_S))
            root = "s3://archive"
        files = write_archive(f"{root}/in", {"clip": clips, "long": videos}, _durations_s(seconds, minutes), server)
        for run in RUNS:
            lines = []
            for line in _in_own_process(f"{root}/in", f"{root}/out", seconds, minutes, server, proxy):
                lines.append(line)
                yield {"run": run, **line}
            base_mb, driver = lines[0]["peak_mb"], lines[1:]
            peak_mb = max(line["peak_mb"] for line in driver)
            requests = [line["requests"] for line in driver if line["requests"] is not None]
            yield {
                "run": run, "files": files, "clip_s": seconds if clips else None,
                "minutes": minutes if videos else None,
                **{name: round(sum(line[name] for line in driver), 2) for name in ("seconds", "cpu_s")},
                "peak_mb": peak_mb, "kb_per_file": round((peak_mb - base_mb) * 1024 / files, 2),
                "requests_per_file": round(sum(requests) / files, 2) if requests else None,
            }  # fmt: skip


def _durations_s(seconds: float, minutes: float) -> dict[str, float]:
    return {"clip": seconds, "long": 60.0 * minutes}


def _size_bytes(name: str, durations_s: dict[str, float]) -> int:
    """Return the size of a file of the archive. Sizes of a kind differ by up to a half, however many files it has."""
    kind, _, file = name.split("/")[-3:]
    usual = round(durations_s[kind] * _FPS * _FRAME_BYTES)
    return usual + int(file.partition(".")[0]) * _SIZE_STEP % max(1, usual // 2)


def write_archive(root: str, kinds: dict[str, int], durations_s: dict[str, float], server: S3Server | None) -> int:
    """Write files without content, because no worker reads them. Return their number."""
    names = [
        f"{kind}/{number // _PER_FOLDER:04d}/{number:07d}.mp4"
        for kind, count in kinds.items() for number in range(count)
    ]  # fmt: skip
    if server is not None:
        server.write_small(f"{root.removeprefix('s3://')}/{name}" for name in names)
        return len(names)
    for folder in {os.path.dirname(name) for name in names}:
        os.makedirs(f"{root}/{folder}")
    for name in names:
        with open(f"{root}/{name}", "xb") as file:
            file.truncate(_size_bytes(name, durations_s))
    return len(names)


def _in_own_process(
    inputs: str, out: str, seconds: float, minutes: float, server: S3Server | None, proxy: Proxy | None
) -> Iterator[dict[str, Any]]:
    """Annotate in a new process, whose memory is the driver's alone. Yield the lines of its phases."""
    context = multiprocessing.get_context("spawn")
    received, sent = context.Pipe(duplex=False)
    environment = {} if server is None or proxy is None else server.environment | {"http_proxy": proxy.url}
    process = context.Process(target=_annotate_unsynced, args=(inputs, out, seconds, minutes, environment, sent))
    process.start()
    sent.close()
    counted = len(proxy.requests) if proxy else 0
    try:
        while True:
            line = received.recv()
            total = len(proxy.requests) if proxy else 0
            yield line | {"requests": total - counted if proxy else None}
            counted = total
    except EOFError:
        process.join()
    if process.exitcode:
        raise AupipeError(f"the job ended with exit code {process.exitcode}")


def _annotate_unsynced(inputs: str, out: str, seconds: float, minutes: float, *others: Any) -> None:
    """Annotate as `annotate_unread`, without waiting for the disk, and without a watchdog, because nothing stalls."""
    durations_s = _durations_s(seconds, minutes)

    def with_sizes(*arguments: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, info in objects_below(*arguments):
            yield path, info | {"size": _size_bytes(path, durations_s)}

    listing = patch.object(input_search, "objects_below", new=with_sizes)
    with patch("os.fsync", new=lambda file: None), patch.object(retry, "Watchdog", new=_Unwatched), listing:
        annotate_unread(inputs, out, seconds, minutes, *others)


class _Unwatched(retry.Unwatched):
    def __init__(self, *arguments: Any) -> None:
        pass

    def end(self) -> None:
        """Do nothing."""


def annotate_unread(
    inputs: str, out: str, seconds: float, minutes: float, environment: dict[str, str], lines: Connection
) -> None:
    """Annotate an archive that no worker reads, and send a line at the end of each phase.

    Args:
        seconds, minutes: length of a short and of a long file.
        environment: variables of the job.

    Raises:
        AupipeError: a file is not annotated.
    """
    os.environ.update(environment)
    config = AnnotateConfig(engine="ray")
    checkpoints = default_models.FOLDERS
    load(checkpoints, config.ensemble)  # Memory that does not depend on the archive.
    Detector(config.detector)
    clock = _Clock(lines)
    clock.ends("import")
    job = AnnotateJob((inputs,), checkpoints, out, config)

    @contextmanager
    def open_workers(_: AnnotateJob, keys: CacheKeys, storage: Storage) -> Iterator[Runner]:
        clock.ends("list and plan")
        yield Workers(keys, storage, seconds, minutes, clock.ends, clock.working)

    summary = annotate(job, open_workers)
    clock.ends("end")
    if set(summary.statuses) != {"ok"}:
        raise AupipeError(f"not all videos were annotated: {dict(summary.statuses)}")


def _now() -> tuple[float, float]:
    """Return the time and the CPU time of this process, in seconds."""
    return time.monotonic(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    wall_s, cpu_s = _now()
    return wall_s - start[0], cpu_s - start[1]


@dataclass
class _Clock:
    """The seconds and the peak memory of each phase, without its workers, which are sent as a line at its end."""

    lines: Connection
    _start: tuple[float, float] = field(default_factory=_now)
    _worker: tuple[float, float] = (0.0, 0.0)

    def ends(self, phase: str) -> None:
        """End a phase; the next one begins."""
        (wall_s, cpu_s), (worker_s, worker_cpu_s) = _since(self._start), self._worker
        self.lines.send({
            "phase": phase, "seconds": round(wall_s - worker_s, 2), "cpu_s": round(cpu_s - worker_cpu_s, 2),
            "worker_s": round(worker_s, 2), "peak_mb": _peak_mb(),
        })  # fmt: skip
        self._start, self._worker = _now(), (0.0, 0.0)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the block as the time of a worker."""
        start = _now()
        yield
        wall_s, cpu_s = _since(start)
        self._worker = (self._worker[0] + wall_s, self._worker[1] + cpu_s)


def _peak_mb() -> int:
    """Return the peak memory of this process since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


class Workers:
    """A runner whose workers decode nothing. Their results pass through rows, as on a cluster."""

    decoders, encoders = 1, 0

    def __init__(
        self, keys: CacheKeys, storage: Storage, seconds: float, minutes: float,
        ends: Callable[[str], None] = lambda phase: None, working: Callable[[], Any] = nullcontext,
    ) -> None:  # fmt: skip
        self._keys, self._storage, self._ends, self._working = keys, storage, ends, working
        self._durations_s = _durations_s(seconds, minutes)
        config = keys.config
        self._segments = {
            kind: cut_into_segments(
                Input("", ""), _video(duration_s), config.segment_s, config.alignment.smoothing_radius,
                max_gap_s=config.effective_tracking.max_gap_s,
            )
            for kind, duration_s in self._durations_s.items()
        }  # fmt: skip
        self._frames, self._features = _row(FRAMES), to_parquet(_row(FEATURES), FEATURES)

    def probe(self, rows: Sequence[Row]) -> Iterator[Row]:
        for row in rows:
            with self._working():
                result = self._probed(ProbeRequest.from_row(row).video).to_row()
            yield result
        self._ends("probe")

    def _probed(self, video: Input) -> ProbeResult:
        kind = video.video_id.partition("/")[0]
        segments = [replace(each, uri=video.uri, video_id=video.video_id) for each in self._segments[kind]]
        digest = hashlib.sha256(video.video_id.encode()).hexdigest()
        record = VideoRecord(
            video.uri, video.video_id, fingerprint=digest, source_hash=digest,
            frames_expected=sum(segment.frames for segment in segments), duration_s=self._durations_s[kind], rotation=0,
            variable_frame_rate=False, frame_width=1280, frame_height=720, pixel_aspect="1:1", hdr="", track=0,
            tracks=1, clock_restarts=0, remark="",
        )  # fmt: skip
        return ProbeResult(video.video_id, record=record, segments=segments)

    def annotate_packets(self, packets: Sequence[Packet]) -> Iterator[Row]:
        rows = [packet.to_row() for packet in packets]  # as for Ray, which holds the rows of all packets
        self._ends("plan")
        yield from self._results(self._annotated, rows)
        self._ends("annotate")

    def _annotated(self, row: Row) -> Row:
        packet = Packet.from_row(row, self._keys)
        with retry.attempt(self._storage, packet.key, self._keys.config.limits, 60.0):
            videos = [
                known or pending_video(video, self._probed(video), self._keys)
                for video, known in packet.pending.sources()
            ]
            records = [self._done(record) for record, _ in videos]
            self._commit(records, packet.generation)
        spent = {record.video_id: (record.work_s or 0.0, 1) for record in records}
        frames = sum(record.frames_expected or 0 for record in records)
        is_small = not packet.pending.is_probed.all()
        return PacketResult(list(spent), frames, {}, spent, is_small=is_small, expected=packet.frames).to_row()

    def extract(self, tasks: Sequence[SegmentTask]) -> Iterator[Row]:
        rows = [task.to_row() for task in tasks]
        self._ends("plan")
        yield from self._results(self._extracted, rows)
        self._ends("extract")

    def _extracted(self, row: Row) -> Row:
        task = SegmentTask.from_row(row)
        with retry.attempt(self._storage, task.key, self._keys.config.limits, 60.0):
            self._storage.write(features.part_name(task.key, 0, True), self._features)
        video_id, frames = task.segment.video_id, task.segment.frames
        return EncodedPart(task.key, video_id, "", "", 1, frames * self._frame_s, True, frames).to_row()

    def finalize(self, groups: Sequence[Group]) -> Iterator[Row]:
        rows = [group.to_row() for group in groups]
        self._ends("group")
        yield from self._results(self._finalized, rows)
        self._ends("finalize")

    def _finalized(self, row: Row) -> Row:
        group = Group.from_row(row)
        self._commit([self._done(record) for record in group.records], group.generation)
        return VideosResult([record.video_id for record in group.records], {}).to_row()

    def _results(self, work: Callable[[Row], Row], rows: Sequence[Row]) -> Iterator[Row]:
        """Yield the results of the workers. Those on S3 wait for most of their time, so several work at a time."""
        with nullcontext() if self._storage.local else ThreadPoolExecutor(_WORKERS_ON_S3) as pool:
            results = map(work, rows) if pool is None else pool.map(work, rows)
            while True:
                with self._working():
                    result = next(results, None)
                if result is None:
                    return
                yield result

    def extract_audio(self, rows: Sequence[Row]) -> list[Row]:
        raise AssertionError("the default models use no audio")

    def export(self, rows: Sequence[Row], forms: tuple[str, ...]) -> list[Row]:
        raise AssertionError("this job exports nothing")

    @contextmanager
    def reserved(self, segments: int) -> Iterator[None]:
        yield

    @property
    def _frame_s(self) -> float:
        return self._keys.config.cost.frame_cpu_s

    def _done(self, record: VideoRecord) -> VideoRecord:
        frames = record.frames_expected or 0
        return replace(
            record, status="ok", reason="", frames_decoded=frames, frames_lost=0, frames_corrupt=0, faces=1,
            work_s=frames * self._frame_s,
        )  # fmt: skip

    def _commit(self, records: Sequence[VideoRecord], generation: int) -> None:
        ids = pa.array([record.video_id for record in records])
        frames = pa.concat_tables([self._frames] * len(records)).set_column(0, "video_id", ids)
        rows_per_file = self._keys.config.rows_per_file
        ledger.commit(self._storage, frames, EVENTS.empty_table(), records, generation, rows_per_file)


def _row(schema: pa.Schema) -> pa.Table:
    """Return a table with one row, whose only value is its frame."""
    return pa.Table.from_pylist([{"frame": 0}], schema)


def _video(duration_s: float) -> VideoInfo:
    """Return the video track of a file of this length."""
    pts = np.arange(max(1, round(duration_s * _FPS)), dtype=np.int64)
    return VideoInfo(
        codec="h264", container="mp4", width_px=1280, height_px=720, track=0, tracks=1, rotation=0,
        pixel_aspect=Fraction(1), hdr="", time_base=Fraction(1, _FPS), start_s=0.0, duration_s=duration_s,
        frames_expected=len(pts), missing=0, missing_s=0.0, damage="", remark="", pts=pts, leading=0, exact=True,
        by_order=False, restarts=(), key_pts=pts[::_KEY_FRAMES], variable_frame_rate=False, audio=None,
    )  # fmt: skip
