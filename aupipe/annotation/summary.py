"""The end of a run: videos.parquet, run.json and the summary in the terminal."""

from __future__ import annotations

import json
import platform
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

import aupipe
from aupipe import facs
from aupipe.annotation import schema
from aupipe.annotation.faults import LOGS, is_internal
from aupipe.annotation.inputs import Input, SkippedFiles
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.settings import content_hash
from aupipe.annotation.video_record import VideoRecord
from aupipe.errors import redact
from aupipe.parquet import read_parquet
from aupipe.storage import Storage

if TYPE_CHECKING:
    from aupipe.annotation.cache_keys import CacheKeys  # `cache_keys` imports torch

VIDEOS_FILE, _RUN = "videos.parquet", "run.json"
_ROWS_TOGETHER = 10_000
_LISTED = 20  # inputs with a reason in the terminal, at most

# Name in run.json → distribution.
_PACKAGES = {"torch": "torch", "ray": "ray", "av": "av", "opencv": "opencv-python-headless", "pyarrow": "pyarrow"}


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        videos: the records of this run's inputs.
        pending: the number of inputs that are left to a run of another phase.
        frames, work_s, cost: the extracted frames, the CPU time for them, and its price.
        skipped: the skipped files in the named folders.
        stages: seconds of work of each stage.
        bound_by: the stage that bound the run; "" if nothing was extracted.
        better_encoders: a number of encoders that suits the run better; None: it has enough.
        interrupted: the run was interrupted; `pending` includes the inputs that it did not reach.
    """

    out: str
    videos: Sequence[VideoRecord]
    pending: int
    frames: int
    seconds: float
    work_s: float
    cost: float
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    stages: Mapping[str, float] = field(default_factory=dict)
    bound_by: str = ""
    better_encoders: int | None = None
    interrupted: bool = False

    @property
    def rates(self) -> dict[str, dict[str, float]]:
        """The seconds of work of each stage, and the frames per second of one process in it."""
        return {
            stage: {"work_s": round(seconds, 3), "frames_per_s": round(self.frames / seconds, 3)}
            for stage, seconds in self.stages.items() if seconds > 0
        }  # fmt: skip

    @property
    def statuses(self) -> Counter[str]:
        return Counter(record.status or "" for record in self.videos)

    @property
    def incomplete(self) -> int:
        return self.statuses["quarantined"] + self.statuses["partial"]

    @property
    def faults(self) -> int:
        """The number of inputs with an internal error."""
        return sum(is_internal(record.reason) for record in self.videos)

    @property
    def usable(self) -> int:
        """The number of inputs with at least one decoded frame."""
        return self.pending + sum(r.status in ("ok", "duplicate") or bool(r.frames_decoded) for r in self.videos)

    def text(self) -> str:
        statuses = [*sorted(self.statuses.items()), *([("not finalized yet", self.pending)] if self.pending else [])]
        counts = ", ".join(f"{count} {status}" for status, count in statuses)
        lines = [f"{counts}; {self.frames:,} frames decoded in {self.seconds:.1f} s; tables in {redact(self.out)}"]
        if self.frames:
            spent = f"{self.work_s / 3600:.3f} CPU-hours, {self.work_s / self.frames:.3f} s per frame"
            lines.append(spent + (f", cost {self.cost:.2f}" if self.cost else ""))
        lines += self._stage_table()
        if skipped := self.skipped.text():
            lines.append(skipped)
        if self.faults:
            inputs = "1 input" if self.faults == 1 else f"{self.faults:,} inputs"
            lines.append(
                f"an error in aupipe (internal_error) affected {inputs}; the tables of all others are complete; "
                f"report the tracebacks in {redact(self.out)}/{LOGS}; re-run the command to retry"
            )
        incomplete = [record for record in self.videos if record.status in ("quarantined", "partial")]
        reasons = Counter((record.reason or "").partition(":")[0] for record in incomplete)
        if len(incomplete) > 1:
            lines.append("reasons: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
        lines += [f"  {r.video_id}: {r.status}: {r.reason}" for r in incomplete[:_LISTED]]
        if more := incomplete[_LISTED:]:
            lines.append(f"  … and {len(more):,} more; all reasons are in {redact(self.out)}/{VIDEOS_FILE}")
        if self.frames:
            lines.append(f"for pages with player and curves: aupipe report {shlex.quote(redact(self.out))}")
        return "\n".join(lines)

    def _stage_table(self) -> list[str]:
        if not self.rates:
            return []
        lines = [f"  {'stage':<10}{'seconds':>10}{'frames/s':>10}"]
        for stage, rate in self.rates.items():
            bound = "  bound the run" if stage == self.bound_by else ""
            lines.append(f"  {stage:<10}{rate['work_s']:>10,.1f}{rate['frames_per_s']:>10,.1f}{bound}")
        if self.better_encoders:
            lines.append(f"  encoder-bound: set encoders={self.better_encoders}, which keeps all processes busy")
        return lines


def write_videos(
    storage: Storage, committed: Ledger, quarantined: dict[str, VideoRecord], inputs: Sequence[Input],
    only: Collection[str] | None = None,
) -> None:  # fmt: skip
    """Write videos.parquet: committed videos, and those that this run and earlier runs quarantined.

    The further columns of manifests, of this run and earlier ones, follow the columns of VIDEOS, as text.

    Args:
        only: the videos to write; None: all.
    """
    exists = storage.exists(VIDEOS_FILE)
    earlier = read_parquet(storage.read(VIDEOS_FILE)) if exists else schema.VIDEOS.empty_table()
    aside = earlier.filter(pc.is_in(earlier["status"], value_set=pa.array(["quarantined", "duplicate"])))
    rows = {row["video_id"]: VideoRecord.from_row(row) for row in aside.to_pylist()}
    rows |= {video_id: record for video_id, (record, _) in committed.current().items()}
    rows |= quarantined
    rows = {key: row for key, row in rows.items() if only is None or key in only}
    further = _further(earlier)
    for video in inputs:
        further.pop(video.video_id, None)
        if video.further:
            further[video.video_id] = dict(video.further)
    names = sorted({name for key in rows for name in further.get(key, {})})
    full = pa.schema([*schema.VIDEOS, *((name, pa.string()) for name in names)], metadata=schema.VIDEOS.metadata)
    keys = sorted(rows)
    tables = [full.empty_table()]
    for first in range(0, len(keys), _ROWS_TOGETHER):  # A row is larger as a dict than in a table.
        together = [rows[key].to_row() | further.get(key, {}) for key in keys[first : first + _ROWS_TOGETHER]]
        tables.append(pa.Table.from_pylist(together, schema=full))
    storage.write(VIDEOS_FILE, schema.to_parquet(pa.concat_tables(tables), full))


def _further(videos: pa.Table) -> dict[str, dict[str, Any]]:
    """Return the values of columns that are not in VIDEOS, by video_id; {} if there is none."""
    names = [name for name in videos.column_names if name not in schema.VIDEOS.names]
    rows = videos.select(["video_id", *names]).to_pylist() if names else []
    return {row.pop("video_id"): row for row in rows}


def write_run(storage: Storage, keys: CacheKeys, command: Sequence[str], summary: Summary) -> None:
    """Write run.json: the models and settings of the tables, and the counts of this run."""
    decision, members = keys.decision, keys.models.members
    thresholds = {au: sum(each[au] for each in decision.thresholds) / len(members) for au in facs.AUS}
    described = {
        "command": [redact(part) for part in command],
        "models": [
            {
                "checkpoint": redact(member.checkpoint), "name": member.card.model.name, "sha256": member.card.sha256,
                "thresholds": own, "smoothing_radius": radius,
            }
            for member, own, radius in zip(members, decision.thresholds, decision.radii, strict=True)
        ],
        "model_sha256": keys.models.sha256,
        "ensemble": decision.rule if len(members) > 1 else None,
        "config": keys.config.model_dump(mode="json"),
        "config_sha256": content_hash(keys.config.model_dump(mode="json")),
        # With vote, each model has its own thresholds.
        "thresholds": thresholds if decision.rule == "mean" or len(members) == 1 else None,
        "schema_version": schema.SCHEMA_VERSION,
        "statuses": dict(summary.statuses),
        "skipped": summary.skipped.record(),
        "frames": {  # of the inputs of this run; every expected frame has a row
            name: sum(getattr(record, f"frames_{name}") or 0 for record in summary.videos)
            for name in ("expected", "decoded", "lost", "corrupt")
        },
        "frames_observed": summary.frames,
        "work_s": round(summary.work_s, 3),
        "cost": round(summary.cost, 4),
        "seconds": round(summary.seconds, 3),
        "frames_per_s": round(summary.frames / summary.seconds, 3),
        "stages": summary.rates,
        "bound_by": summary.bound_by,
        "interrupted": summary.interrupted,
        "versions": {
            "aupipe": aupipe.__version__, "python": platform.python_version(),
            **{name: version(package) for name, package in _PACKAGES.items()},
        },
    }  # fmt: skip
    storage.write(_RUN, json.dumps(described, indent=1).encode())
