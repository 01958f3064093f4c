"""Random processes killed at random moments of an annotation, again and again: its tables must not show it.

The command runs on a cluster of two nodes. Killed are workers, actors, the second node's raylet (a new node joins) and
the driver (the same command is given again), until the command ends by itself. Redone work is counted in segments:
a segment that is begun again must have been in flight, begun and not committed, at as many kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from aupipe.benchmarks import processes
from aupipe.benchmarks.accounts import Accounts
from aupipe.benchmarks.clips import scene, write_clip
from aupipe.benchmarks.cluster import Cluster
from aupipe.errors import AupipeError

KINDS = ("worker", "actor", "raylet", "driver")
# Segments of a second. A kill is not the input's fault: an input is not to be set aside for it.
_OPTIONS = ["--workers", "2", "--set", "segment_s=0.9", "--set", "limits.attempts=100"]
_END_S = 1800.0  # a run that takes longer hangs
_ROWS = [("video_id", "ascending"), ("frame", "ascending"), ("face_id", "ascending")]
_EVENTS = [(name, "ascending") for name in ("video_id", "face_id", "au", "onset_s")]
_NOT_REPEATED = ("work_s", "attempts")  # of videos.parquet: what this run happened to take


@dataclass
class Run:
    """One output, from an empty folder to the end of the command, however often it took.

    Attributes:
        killed: by kind.
        in_flight: segments in flight at each kill.
        span_s: from the first sign of work to the end.
    """

    out: Path
    killed: Counter[str] = field(default_factory=Counter)
    in_flight: list[int] = field(default_factory=list)
    span_s: float = 0.0


def write_archive(folder: Path, clips: int = 6, seconds: int = 3) -> Path:
    """Small clips of one face each, with a key frame a second."""
    for number in range(clips):
        images = scene(25 * seconds, size=(160, 128), face=112, seed=number)
        write_clip(folder / f"{number}.mp4", images, options={"g": "25", "preset": "ultrafast"})
    return folder


def measure(
    archive: Path | None, checkpoint: str, kills: int, seed: int = 0, kinds: tuple[str, ...] = KINDS
) -> Iterator[dict[str, Any]]:
    """A line for each disturbed run, the tally last.

    Raises:
        AupipeError: a run failed or came to no end.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="chaos") as folder, Cluster(Path(folder)) as cluster:
        archive = archive or write_archive(Path(folder) / "archive")
        chaos = _Chaos(cluster, ["--input", str(archive), "--checkpoint", checkpoint, *_OPTIONS], rng, kinds)
        undisturbed, _ = chaos.run(Path(folder) / "undisturbed", 0, 0.0)
        wanted = tables(undisturbed.out)
        lines: list[dict[str, Any]] = []
        killed: Counter[str] = Counter()
        while killed.total() < kills:
            run, accounts = chaos.run(Path(folder) / str(len(lines)), kills - killed.total(), undisturbed.span_s)
            killed += run.killed
            lines.append(_line(run, accounts, wanted))
            yield lines[-1]
        in_flight = [count for line in lines for count in line["in_flight"]]
        yield {
            "runs": len(lines), "kills": killed.total(), **{f"killed_{kind}s": killed[kind] for kind in KINDS},
            "kills_with_work_in_flight": sum(count > 0 for count in in_flight),
            "segments_in_flight_at_kills": sum(in_flight), "most_in_flight": max(in_flight, default=0),
            **{name: sum(line[name] for line in lines)
               for name in ("segments_redone", "redone_beyond", "parts_rewritten", "rows_lost", "rows_twice")},
            "runs_equal": sum(line["equal"] for line in lines),
            "undisturbed_s": round(undisturbed.span_s, 1),
        }  # fmt: skip


def tables(out: Path) -> dict[str, pa.Table]:
    """Final tables, in order of their keys."""
    videos = pq.read_table(out / "videos.parquet").sort_by("video_id")
    return {
        "frames": pads.dataset(out / "frames").to_table().sort_by(_ROWS).combine_chunks(),
        "events": pads.dataset(out / "events").to_table().sort_by(_EVENTS).combine_chunks(),
        "videos": videos.drop_columns(list(_NOT_REPEATED)),
    }


def _line(run: Run, accounts: Accounts, wanted: dict[str, pa.Table]) -> dict[str, Any]:
    found = tables(run.out)
    rows, expected = (
        Counter(zip(*(t["frames"][name].to_pylist() for name, _ in _ROWS), strict=True)) for t in (found, wanted)
    )
    return {
        "killed": dict(run.killed), "in_flight": run.in_flight, "span_s": round(run.span_s, 1),
        "segments": len(accounts.begun), "segments_redone": accounts.redone, "redone_beyond": accounts.beyond,
        "parts_rewritten": sum(count - 1 for count in accounts.written.values()),
        "rows_lost": (expected - rows).total(), "rows_twice": (rows - expected).total(),
        "equal": all(found[name].equals(wanted[name]) for name in wanted),
    }  # fmt: skip


class _Chaos:
    def __init__(self, cluster: Cluster, arguments: list[str], rng: random.Random, kinds: tuple[str, ...]) -> None:
        self._cluster, self._arguments, self._rng, self._kinds = cluster, arguments, rng, kinds

    def run(self, out: Path, kills: int, span_s: float) -> tuple[Run, Accounts]:
        """The command, with up to so many kills, each some part of `span_s` after the last one or the first work."""
        run, accounts = Run(out), Accounts(out)
        log = out.with_suffix(".log")
        job = self._start(out, log)
        started, begin = time.monotonic(), None
        next_kill: float | None = None
        while job.poll() is None:
            now = time.monotonic()
            if now - started > _END_S:
                processes.end(job.pid)
                raise AupipeError(f"the command came to no end after {dict(run.killed)}: {_tail(log)}")
            if accounts.read() and next_kill is None:
                begin = begin or now
                next_kill = now + self._rng.uniform(0, span_s)
            if next_kill is not None and now >= next_kill and run.killed.total() < kills:
                kind, process = self._victim(job.pid)
                before = self._cluster.workers()
                os.kill(process, signal.SIGKILL)
                run.killed[kind] += 1
                next_kill = now + self._rng.uniform(0, span_s)
                if kind == "raylet":
                    self._cluster.replace_second()
                if kind == "driver":
                    job.wait()
                    self._await_end({p for p, title in before.items() if "Map" in title})
                run.in_flight.append(accounts.kill())
                if kind == "driver":
                    job, next_kill = self._start(out, log), None
            time.sleep(0.02)
        accounts.read()
        accounts.close()
        if job.returncode != 0:
            raise AupipeError(f"exit code {job.returncode} after {dict(run.killed)} were killed: {_tail(log)}")
        run.span_s = time.monotonic() - (begin or started)
        return run, accounts

    def _victim(self, driver: int) -> tuple[str, int]:
        workers = {p: title for p, title in self._cluster.workers().items() if "Agent" not in title}
        found = {"worker": [], "actor": [], "raylet": [], "driver": [driver]}  # type: dict[str, list[int]]
        for process, title in workers.items():
            found["worker" if title.startswith(("ray::IDLE", "ray::Map(", "ray::FlatMap(")) else "actor"].append(
                process
            )
        if (raylet := self._cluster.second_raylet) is not None:
            found["raylet"].append(raylet)
        kind = self._rng.choice([kind for kind in self._kinds if found[kind]])
        return kind, self._rng.choice(sorted(found[kind]))

    def _start(self, out: Path, log: Path) -> subprocess.Popen[bytes]:
        command = processes.annotate(*self._arguments, "--out", str(out))
        with open(log, "a") as file:
            return subprocess.Popen(
                command, env=self._cluster.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _await_end(self, workers: set[int]) -> None:
        """Workers notice within seconds that their driver is dead."""
        deadline = time.monotonic() + _END_S
        while workers & {p for p, title in self._cluster.workers().items() if "Map" in title}:
            if time.monotonic() > deadline:
                raise AupipeError("workers of a dead driver live on")
            time.sleep(0.05)


def _tail(log: Path) -> str:
    return " | ".join(log.read_text().strip().splitlines()[-5:])
