"""The driver of annotate.py on an archive of any size: its memory, its requests and its seconds in each phase.

Listing, plan, ledger, marks and commits are those of a real job. Only workers are replaced: probing returns what it
would find in such a file, decoding costs nothing, and a video has one row instead of one row per frame. Files have the
sizes of videos; on disk they take no room, and on S3 they have one byte, and their sizes are changed in the listing.
Files are not synced, because workers would wait for this disk most of the time. `seconds` and `cpu_s` are the driver's
alone, which a cluster of any size waits for; `worker_s` is the time for which the driver waits for workers.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aupipe.annotation import input_search, retry
from aupipe.annotation.annotate_job import AnnotateJob
from aupipe.annotation.annotator import annotate
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.model_set import load
from aupipe.annotation.runner import Runner
from aupipe.annotation.settings import AnnotateConfig
from aupipe.errors import AupipeError, ConfigError
from aupipe.faces.detect import Detector
from aupipe.models import default_models
from aupipe.storage import Storage, objects_below
from harness.proxy import Proxy, proxying
from harness.s3_server import S3Server
from harness.scale_workers import FPS, Workers, durations_s

RUNS = ("first", "unchanged")
_FRAME_BYTES = 5_000  # of a frame in a file: 1 Mbit/s
_SIZE_STEP = 7919  # bytes from the size of one file to that of the next one
_PER_FOLDER = 1000  # files of a folder of the archive
LATENCY_S = 0.02  # added to each request to S3


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
        files = write_archive(f"{root}/in", {"clip": clips, "long": videos}, durations_s(seconds, minutes), server)
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


def _size_bytes(name: str, durations_s: dict[str, float]) -> int:
    """Return the size of a file of the archive. Sizes of a kind differ by up to a half, however many files it has."""
    kind, _, file = name.split("/")[-3:]
    usual = round(durations_s[kind] * FPS * _FRAME_BYTES)
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
    lengths_s = durations_s(seconds, minutes)

    def with_sizes(*arguments: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, info in objects_below(*arguments):
            yield path, info | {"size": _size_bytes(path, lengths_s)}

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
