"""Annotation while random processes are killed at random moments: its tables must equal those of an undisturbed run.

The command runs on a cluster of two nodes. Workers, actors, the second node's raylet and the driver are killed until
the command completes. A new node replaces a killed one, and the command is run again after its driver was killed.
Repeated work is counted in segments: a segment may restart once for each kill at which it was in flight, that is,
started and not committed.
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

from aupipe.errors import AupipeError
from harness import processes
from harness.clips import scene, write_clip
from harness.clusters import Cluster
from harness.commit_audit import CommitAudit

KINDS = ("worker", "actor", "raylet", "driver")
# Small packets, and segments of a second, make many restarts possible.
_OPTIONS = ["--workers", "2", "--set", "segment_s=0.9", "--set", "packet_frames=100"]
_END_S = 1800.0  # a longer run counts as hanging
_ROWS = [("video_id", "ascending"), ("frame", "ascending"), ("face_id", "ascending")]
_EVENTS = [(name, "ascending") for name in ("video_id", "face_id", "au", "onset_s")]
_VARIABLE = ("work_s", "attempts")  # columns of videos.parquet that differ from run to run


@dataclass
class Run:
    """One annotation, from an empty output folder until the command completes, however often it is started.

    Attributes:
        killed: number of killed processes by kind.
        in_flight: number of segments in flight at each kill.
        span_s: seconds from the first sign of work to the end.
    """

    out: Path
    killed: Counter[str] = field(default_factory=Counter)
    in_flight: list[int] = field(default_factory=list)
    span_s: float = 0.0


def write_archive(folder: Path, clips: int = 6, seconds: int = 3) -> Path:
    """Write small clips of one face each, with one key frame per second. Every third is too long for a packet."""
    for number in range(clips):
        images = scene(25 * seconds * (3 if number % 3 == 0 else 1), size=(160, 128), face=112, seed=number)
        write_clip(folder / f"{number}.mp4", images, options={"g": "25", "preset": "ultrafast"})
    return folder


def measure(
    archive: Path | None, checkpoint: str, kills: int, seed: int = 0, kinds: tuple[str, ...] = KINDS
) -> Iterator[dict[str, Any]]:
    """Yield a line for each disturbed run, and the totals last.

    Args:
        archive: folder of clips; None: a few drawn clips.
        kinds: kinds of processes to kill.

    Raises:
        AupipeError: a run failed or did not complete.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="chaos") as folder, Cluster(Path(folder)) as cluster:
        archive = archive or write_archive(Path(folder) / "archive")
        chaos = _Chaos(cluster, ["--input", str(archive), "--checkpoint", checkpoint, *_OPTIONS], rng, kinds)
        undisturbed, _ = chaos.run(Path(folder) / "undisturbed", 0, 0.0)
        expected = tables(undisturbed.out)
        lines: list[dict[str, Any]] = []
        killed: Counter[str] = Counter()
        while killed.total() < kills:
            run, audit = chaos.run(Path(folder) / str(len(lines)), kills - killed.total(), undisturbed.span_s)
            killed += run.killed
            lines.append(_line(run, audit, expected))
            yield lines[-1]
        in_flight = [count for line in lines for count in line["in_flight"]]
        yield {
            "runs": len(lines), "kills": killed.total(), **{f"killed_{kind}s": killed[kind] for kind in KINDS},
            "kills_with_work_in_flight": sum(count > 0 for count in in_flight),
            "segments_in_flight_at_kills": sum(in_flight), "most_in_flight": max(in_flight, default=0),
            **{name: sum(line[name] for line in lines)
               for name in ("segments_redone", "redone_beyond", "parts_rewritten", "rows_lost", "rows_twice",
                            "wrongly_quarantined")},
            "runs_equal": sum(line["equal"] for line in lines),
            "undisturbed_s": round(undisturbed.span_s, 1),
        }  # fmt: skip


def tables(out: Path) -> dict[str, pa.Table]:
    """Return the final tables of an output folder, each sorted by its keys."""
    videos = pq.read_table(out / "videos.parquet").sort_by("video_id")
    return {
        "frames": pads.dataset(out / "frames").to_table().sort_by(_ROWS).combine_chunks(),
        "events": pads.dataset(out / "events").to_table().sort_by(_EVENTS).combine_chunks(),
        "videos": videos.drop_columns(list(_VARIABLE)),
    }


def _line(run: Run, audit: CommitAudit, expected: dict[str, pa.Table]) -> dict[str, Any]:
    found = tables(run.out)
    rows, expected_rows = (
        Counter(zip(*(t["frames"][name].to_pylist() for name, _ in _ROWS), strict=True)) for t in (found, expected)
    )
    return {
        "killed": dict(run.killed), "in_flight": run.in_flight, "span_s": round(run.span_s, 1),
        "segments": len(audit.starts), "segments_redone": audit.restarts, "redone_beyond": audit.excess_restarts,
        "parts_rewritten": sum(count - 1 for count in audit.writes.values()),
        "rows_lost": (expected_rows - rows).total(), "rows_twice": (rows - expected_rows).total(),
        "wrongly_quarantined": _quarantined(found) - _quarantined(expected),
        "equal": all(found[name].equals(table) for name, table in expected.items()),
    }  # fmt: skip


def _quarantined(found: dict[str, pa.Table]) -> int:
    return found["videos"]["status"].to_pylist().count("quarantined")


class _Chaos:
    """Runs of one command on a cluster, whose processes it kills."""

    def __init__(self, cluster: Cluster, arguments: list[str], rng: random.Random, kinds: tuple[str, ...]) -> None:
        self._cluster, self._arguments, self._rng, self._kinds = cluster, arguments, rng, kinds

    def run(self, out: Path, kills: int, span_s: float) -> tuple[Run, CommitAudit]:
        """Run the command with at most `kills` kills, each up to `span_s` after the last kill or the first work."""
        run, audit = Run(out), CommitAudit(out)
        log = out.with_suffix(".log")
        job = self._start(out, log)
        started, begin = time.monotonic(), None
        next_kill: float | None = None
        while job.poll() is None:
            now = time.monotonic()
            if now - started > _END_S:
                processes.end(job.pid)
                raise AupipeError(f"the command did not complete after {dict(run.killed)} were killed: {_tail(log)}")
            if audit.read() and next_kill is None:
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
                run.in_flight.append(audit.record_kill())
                if kind == "driver":
                    job, next_kill = self._start(out, log), None
            time.sleep(0.02)
        audit.read()
        audit.close()
        if job.returncode != 0:
            raise AupipeError(f"exit code {job.returncode} after {dict(run.killed)} were killed: {_tail(log)}")
        run.span_s = time.monotonic() - (begin or started)
        return run, audit

    def _victim(self, driver: int) -> tuple[str, int]:
        """Choose a process to kill. Returns its kind and number."""
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
        """Start the command; its messages are appended to `log`."""
        command = processes.command("annotate", *self._arguments, "--out", str(out))
        with open(log, "a") as file:
            return subprocess.Popen(
                command, env=self._cluster.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _await_end(self, workers: set[int]) -> None:
        """Wait until the workers of a killed driver have ended, which takes them seconds."""
        deadline = time.monotonic() + _END_S
        while workers & {p for p, title in self._cluster.workers().items() if "Map" in title}:
            if time.monotonic() > deadline:
                raise AupipeError("workers of a killed driver did not end")
            time.sleep(0.05)


def _tail(log: Path) -> str:
    return " | ".join(log.read_text().strip().splitlines()[-5:])
