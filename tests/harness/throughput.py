"""Frames per second of annotation end to end, beside the same cores that only decode, or that run a plain loop.

All variants run in turn, so that other work on the machine affects them alike. Figures are medians.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aupipe.errors import AupipeError, ConfigError
from aupipe.media.probe import probe
from harness import processes
from harness.clips import free_box, repeat, scene, write_clip

CORES = 2
_SIZE, _FACE_PX, _FPS = (640, 360), 240, 25
_CLIP_S = 10.0
_EVERY_S = 0.1  # between two samples of a run
_PAUSE_S = 1.0  # without a mark, at most, between two pieces of the same work
_IDLE = 0.9  # least share of a sample without work, in which a core counts as idle


def measure(minutes: float, sizes: Sequence[int], repeats: int, video: str | None = None) -> dict[str, Any]:
    """Return frames per second of annotation on two cores, with the default models.

    `annotate_1` and `annotate_2` are the job on Ray with a worker and a core, and with two of each, from the first
    decoded frame to the last table; `startup_s` is the time before. `decode` only decodes, in a process per core.
    `loop` runs the same functions from frames to logits in a process per core, and writes no tables. `size_cost` is the
    time per frame of an archive of each size, relative to the first one. `idle_core_s` is the longest time for which a
    core had no work between the first and the last commit.

    Args:
        minutes: length of an archive of size 1, which has a video for each core.
        sizes: sizes of the archive, the first of which all variants annotate.
        video: which is repeated; None: a drawn face of 240 px in 640×360, which is smooth, so that it is decoded faster
            than a real one.

    Raises:
        ConfigError: there are fewer than two cores, or an argument is too small.
        MediaError: the video cannot be read.
        AupipeError: the job failed.
    """
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    info = probe(video) if video else None
    clip_s = info.duration_s or 1.0 if info else _CLIP_S
    clips = round(minutes * 60 / clip_s / CORES)
    if len(cores) < CORES or clips < 1 or min(sizes, default=0) < 1 or repeats < 1:
        raise ConfigError(
            f"{len(cores)} cores, {minutes:g} minutes, sizes {sizes}, {repeats} repeats (at least {CORES} cores, "
            f"{CORES * clip_s / 60:.2f} minutes, a size of 1 and 1 repeat)"
        )
    runs: dict[tuple[int, int], list[_Run]] = {(number, sizes[0]): [] for number in (1, 2)}
    runs |= {(CORES, size): [] for size in sizes[1:]}
    seconds: dict[str, list[float]] = {"decode": [], "loop": []}
    with tempfile.TemporaryDirectory() as scratch, _loops(cores) as loops:
        folder = Path(scratch)
        clip = Path(video) if video else _drawn(folder / "clip.mp4")
        archives = {size: _archive(folder / str(size), size, clip, clip_s, clips) for size in dict.fromkeys(sizes)}
        held = probe(str(archives[sizes[0]][0]))
        frames = CORES * held.frames_expected
        for number in range(repeats):
            for name, taken in seconds.items():
                taken.append(loops(name, archives[sizes[0]][:CORES]))
            for workers, size in runs:
                out = folder / f"out {number} {workers} {size}"
                runs[workers, size].append(_annotate(folder / str(size), out, cores[:workers]))
    rates = {name: frames / statistics.median(taken) for name, taken in seconds.items()}
    work_s = {key: statistics.median(run.work_s for run in each) for key, each in runs.items()}
    first = sizes[0]
    rates |= {f"annotate_{number}": frames * first / work_s[number, first] for number in (1, 2)}
    costs = {size: work_s[CORES, size] / size / (work_s[CORES, first] / first) for size in sizes}
    last = runs[CORES, sizes[-1]]
    return {
        "frame": f"{held.width_px}x{held.height_px}", "frames": frames * first, "repeats": repeats,
        "frames_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "decode_ratio": round(rates["annotate_2"] / rates["decode"], 3),
        "loop_ratio": round(rates["annotate_2"] / rates["loop"], 3),
        "scaling": round(rates["annotate_2"] / rates["annotate_1"], 2),
        "size_cost": {str(size): round(cost, 3) for size, cost in costs.items()},
        "startup_s": round(statistics.median(run.startup_s for run in runs[CORES, first]), 1),
        "idle_core_s": round(statistics.median(run.idle_s for run in last), 1),
    }  # fmt: skip


def _drawn(path: Path) -> Path:
    return write_clip(path, scene(round(_CLIP_S * _FPS), _SIZE, face=_FACE_PX))


def _archive(folder: Path, size: int, clip: Path, clip_s: float, clips: int) -> list[Path]:
    """Write the videos of an archive, each a clip repeated `clips` times."""
    folder.mkdir()
    paths = [folder / f"{number}.mp4" for number in range(CORES * size)]
    videos = [repeat(clip, clip_s, clips, path, kinds=["video"]) for path in paths]
    for number, each in enumerate(videos):  # Equal files would be annotated once.
        with open(each, "ab") as file:
            file.write(free_box(number.to_bytes(8, "big")))
    return videos


@dataclass
class _Run:
    """The samples of one run of the job.

    Attributes:
        startup_s: until the first segment is decoded.
        work_s: from then on, until the tables are complete.
        idle_s: the longest time for which a core was idle between the first and the last commit.
    """

    startup_s: float = 0.0
    work_s: float = 0.0
    idle_s: float = 0.0
    commits: list[float] = field(default_factory=list)
    samples: list[tuple[float, list[float]]] = field(default_factory=list)  # time, and idle seconds of each core


def _annotate(archive: Path, out: Path, cores: Sequence[int]) -> _Run:
    """Annotate an archive on some cores, with a worker each."""
    command = processes.command(
        "annotate", "--input", str(archive), "--out", str(out), "--workers", str(len(cores)), "--set", "engine=ray",
    )  # fmt: skip
    run, names = _Run(), set[str]()
    marks, ended = list[tuple[float, bool]](), 0.0
    start = time.monotonic()
    with open(out.with_name("log"), "w+") as log:
        job = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        os.sched_setaffinity(job.pid, cores)
        try:
            while job.poll() is None:
                now = time.monotonic()
                run.samples.append((now, _idle_s(cores)))
                # The mark of a segment or packet has a dot in its name, that of a video to be probed has none.
                marks.append((now, any("." in each.name for each in _files(out / "_work/attempts"))))
                found = {each.name for part in ("observed", "ledger") for each in _files(out / "_work" / part)}
                run.commits += [now] if found - names else []
                names |= found
                ended = ended or (now if (out / "run.json").exists() else 0.0)
                time.sleep(_EVERY_S)
        finally:
            processes.end(job.pid)
        log.seek(0)
        text = log.read()
    begun = work_start(marks, run.commits[0] if run.commits else math.inf)
    if job.returncode or begun is None:
        raise AupipeError(f"annotate.py ended with {job.returncode}: {text.strip().splitlines()[-1:]}")
    run.startup_s, run.work_s = begun - start, (ended or time.monotonic()) - begun
    run.idle_s = longest_idle_s([each for each in run.samples if run.commits[0] <= each[0] <= run.commits[-1]])
    return run


def work_start(marks: Sequence[tuple[float, bool]], first_commit: float) -> float | None:
    """Return the time at which the work began that led to the first commit; None if there was no work.

    A packet whose videos turn out to be long is marked, probed and left. Its mark is gone some time before the segments
    of the videos are marked.

    Args:
        marks: times, each with whether anything was marked as being worked on.
    """
    begun, last = None, -math.inf
    for now, is_marked in marks:
        if is_marked and now <= first_commit:
            begun = now if begun is None or now - last > _PAUSE_S else begun
            last = now
    return begun


def longest_idle_s(samples: Sequence[tuple[float, Sequence[float]]]) -> float:
    """Return the longest time for which one of the cores was idle.

    Args:
        samples: times, each with the idle seconds of every core since the start of the machine.
    """
    longest, idle = 0.0, dict[int, float]()
    for (before, idle_before), (now, idle_now) in pairwise(samples):
        for core, (low, high) in enumerate(zip(idle_before, idle_now, strict=True)):
            is_idle = high - low >= _IDLE * (now - before)
            idle[core] = idle.get(core, 0.0) + now - before if is_idle else 0.0
            longest = max(longest, idle[core])
    return longest


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _idle_s(cores: Sequence[int]) -> list[float]:
    """Return the seconds that each core was idle since the start of the machine."""
    rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    ticks = {row[0]: int(row[4]) + int(row[5]) for row in rows if row[0].startswith("cpu")}  # idle, and idle with IO
    return [ticks[f"cpu{core}"] / os.sysconf("SC_CLK_TCK") for core in cores]


@contextmanager
def _loops(cores: Sequence[int]) -> Iterator[Callable[[str, Sequence[Path]], float]]:
    """Start a process per core, and yield a function that runs a loop on one video in each and returns the seconds."""
    context = get_context("spawn")
    pipes, workers = [], []
    for core in cores:
        ours, theirs = context.Pipe()
        workers.append(context.Process(target=_loop_worker, args=(theirs, core), daemon=True))
        workers[-1].start()
        pipes.append(ours)

    def run(name: str, videos: Sequence[Path]) -> float:
        for pipe in pipes:
            pipe.recv()  # It is ready.
        start = time.monotonic()
        for pipe, video in zip(pipes, videos, strict=True):
            pipe.send((name, str(video)))
        for pipe in pipes:
            pipe.recv()
        return time.monotonic() - start

    try:
        yield run
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _loop_worker(pipe: Connection, core: int) -> None:
    os.sched_setaffinity(0, [core])
    import av

    from aupipe.annotation import model_set
    from aupipe.annotation.encode import Encoders
    from aupipe.annotation.extract import extract
    from aupipe.annotation.segments import Segment
    from aupipe.annotation.settings import AnnotateConfig
    from aupipe.faces.detect import Detector
    from aupipe.media.frames import Span, frames
    from aupipe.media.probe import probe
    from aupipe.models import default_models

    config = AnnotateConfig()
    models = model_set.load(default_models.FOLDERS, "mean")
    detector, encoders = Detector(config.detector), Encoders(models, config.batch_size, "cpu")

    def decode(video: str) -> None:
        with av.open(video) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for _ in container.decode(video=0):
                pass

    def loop(video: str) -> None:
        info = probe(video)
        segment = Segment(video, "video", 0, 0, None, Span.whole(info))
        for part in extract(
            segment, frames(video, segment.span), detector, config.alignment.smoothing_radius, models.templates,
            config.effective_tracking, config.search.every,
        ):  # fmt: skip
            encoders(list(part.crops))

    loops = {"decode": decode, "loop": loop}
    while True:
        pipe.send(None)
        name, video = pipe.recv()
        loops[name](video)
        pipe.send(None)
