"""The end of a run: videos.parquet, run.json and the summary in the terminal."""

from __future__ import annotations

import json
import platform
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import aupipe
from aupipe import facs
from aupipe.annotation import schema
from aupipe.annotation.faults import LOGS, is_internal
from aupipe.annotation.inputs import Inputs
from aupipe.annotation.ledger import Ledger
from aupipe.annotation.record_columns import to_table
from aupipe.annotation.settings import content_hash
from aupipe.annotation.skipped_files import SkippedFiles
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import mask, one_piece, order_of, rows_of, take_rows
from aupipe.errors import ChangedError, printable, redact
from aupipe.parquet import damage_named, read_parquet
from aupipe.storage import Storage

if TYPE_CHECKING:
    from aupipe.annotation.cache_keys import CacheKeys  # `cache_keys` imports torch

VIDEOS_FILE, _RUN = "videos.parquet", "run.json"
_DISTINCT = ("uri", "video_id", "fingerprint")  # columns of videos.parquet without repeated texts
_LISTED = 20  # inputs with a reason in the terminal, at most

# Name in run.json → distribution.
_PACKAGES = {"torch": "torch", "ray": "ray", "av": "av", "opencv": "opencv-python-headless", "pyarrow": "pyarrow"}


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        videos: one row per input of this run, in the order of their video_id; columns of VIDEOS.
        pending: the number of inputs that are left to a run of another phase.
        frames, work_s, cost: the extracted frames, the CPU time for them, and its price.
        skipped: the skipped files in the named folders.
        stages: seconds of work of each stage.
        bound_by: the stage that bound the run; "" if nothing was extracted.
        better_encoders: a number of encoders that suits the run better; None: it has enough.
        interrupted: the run was interrupted; `pending` includes the inputs that it did not reach.
        otherwise: the number of videos of the output whose rows have other models or settings than those of this run.
    """

    out: str
    videos: pa.Table
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
    otherwise: int = 0

    @property
    def rates(self) -> dict[str, dict[str, float]]:
        """The seconds of work of each stage, and the frames per second of one process in it."""
        return {
            stage: {"work_s": round(seconds, 3), "frames_per_s": round(self.frames / seconds, 3)}
            for stage, seconds in self.stages.items() if seconds > 0
        }  # fmt: skip

    @property
    def statuses(self) -> Counter[str]:
        return _counts(self.videos["status"])

    @property
    def incomplete(self) -> int:
        return self.statuses["quarantined"] + self.statuses["partial"]

    @property
    def faults(self) -> int:
        """The number of inputs with an internal error."""
        return sum(count for reason, count in _counts(self.videos["reason"]).items() if is_internal(reason))

    @property
    def usable(self) -> int:
        """The number of inputs with at least one decoded frame."""
        is_known = pc.is_in(self.videos["status"].cast(pa.string()), pa.array(["ok", "duplicate"]))
        is_decoded = pc.greater(self.videos["frames_decoded"], 0)
        return self.pending + int((mask(is_known) | mask(is_decoded)).sum())

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
        status = self.videos["status"].cast(pa.string())
        incomplete = self.videos.filter(pc.is_in(status, pa.array(["quarantined", "partial"])))
        reasons: Counter[str] = Counter()
        for reason, count in _counts(incomplete["reason"]).items():
            reasons[reason.partition(":")[0]] += count
        if len(incomplete) > 1:
            lines.append("reasons: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
        listed = incomplete.slice(0, _LISTED).to_pylist()
        lines += [f"  {row['video_id']}: {row['status']}: {row['reason']}" for row in listed]
        if (more := len(incomplete) - len(listed)) > 0:
            lines.append(f"  … and {more:,} more; all reasons are in {redact(self.out)}/{VIDEOS_FILE}")
        if count := self.statuses["duplicate"]:
            inputs = "1 duplicate has" if count == 1 else f"{count:,} duplicates have"
            lines.append(
                f"{inputs} no rows or exports: take those of the input that duplicate_of names in "
                f"{redact(self.out)}/{VIDEOS_FILE}"
            )
        if self.otherwise and not self.pending:
            videos = "1 video keeps" if self.otherwise == 1 else f"{self.otherwise:,} videos keep"
            lines.append(
                f"{videos} rows of other models or settings, which run.json no longer describes: name all videos as "
                "inputs to renew them, or give each setting its own --out"
            )
        if self.pending and not self.interrupted:
            inputs = "1 input has" if self.pending == 1 else f"{self.pending:,} inputs have"
            lines.append(f"{inputs} no rows of this run yet; fix: re-run the command without --phase")
        if self.frames and len(self.videos):
            lines.append(f"for pages with player and curves: aupipe report {shlex.quote(redact(self.out))}")
        return "\n".join(map(printable, lines))

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


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    """Return the number of rows with each text; null counts as ""."""
    counted = pc.value_counts(column.cast(pa.string()).fill_null(""))
    return Counter({row["values"]: row["counts"] for row in counted.to_pylist()})


def write_videos(
    storage: Storage, committed: Ledger, quarantined: Mapping[str, VideoRecord], inputs: Inputs,
    only: pa.Array | None = None,
) -> None:  # fmt: skip
    """Write videos.parquet: committed videos, and those that this run and earlier runs quarantined.

    The further columns of manifests, of this run and earlier ones, follow the columns of VIDEOS, as text.

    Args:
        only: the video_id of each video to write; None: all.
    """
    earlier = _Earlier.read(storage)
    current = committed.current()
    known = [current.table.select(schema.VIDEOS.names)]
    if quarantined:
        known = [known[0].filter(pc.invert(pc.is_in(current.ids, pa.array(list(quarantined), pa.string()))))]
        known.append(to_table(quarantined.values()).select(schema.VIDEOS.names))
    aside = earlier.aside
    for table in known:
        aside = aside.filter(pc.invert(pc.is_in(aside["video_id"], one_piece(table["video_id"]))))
    records = map(VideoRecord.from_row, aside.to_pylist())
    known.append(to_table(_without_stale_duplicates([*records], known)).select(schema.VIDEOS.names))
    rows = pa.concat_tables(known).unify_dictionaries()
    if only is not None:
        rows = rows.filter(pc.is_in(rows["video_id"], only))
    rows = take_rows(rows, order_of(one_piece(rows["video_id"])))
    rows, full = _with_further(rows, earlier.further, inputs)
    storage.write(VIDEOS_FILE, schema.to_parquet(rows, full, _DISTINCT))


def _without_stale_duplicates(earlier: Sequence[VideoRecord], known: Sequence[pa.Table]) -> list[VideoRecord]:
    """Return the records, in which a duplicate is quarantined if the first video has other bytes by now.

    It has no rows any more. It is not in the ledger, so the next run that names it annotates it.

    Args:
        earlier: the records that earlier runs wrote.
        known: all other records, as VIDEOS.
    """
    videos = pa.concat_tables([table.select(["video_id", "fingerprint"]) for table in known])
    firsts = pa.array([record.duplicate_of for record in earlier], pa.string())
    rows = rows_of(one_piece(videos["video_id"]), firsts)
    first_ids = firsts.filter(pa.array(rows >= 0)).to_pylist()
    fingerprints = dict(zip(first_ids, take_rows(videos, rows[rows >= 0])["fingerprint"].to_pylist(), strict=True))
    return [
        record
        if fingerprints.get(record.duplicate_of, record.fingerprint) == record.fingerprint
        else replace(
            record, status="quarantined", duplicate_of=None,
            reason=f"{ChangedError.reason}: {record.duplicate_of}, whose rows were those of this file too, has other "
            "bytes or cannot be read any more, so name this file to annotate it",
        )
        for record in earlier
    ]  # fmt: skip


def listed_ids(storage: Storage) -> pa.Array:
    """Return the video_id of each row of videos.parquet; none if there is no such file."""
    if not storage.exists(VIDEOS_FILE):
        return pa.array([], pa.string())
    data = storage.read(VIDEOS_FILE)
    with damage_named(storage.path(VIDEOS_FILE)):
        return one_piece(read_parquet(data, ["video_id"])["video_id"])


def duplicates(storage: Storage) -> list[VideoRecord]:
    """Return the records of the duplicates in videos.parquet, which the ledger lacks."""
    rows = _Earlier.read(storage).aside.to_pylist()
    return [record for record in map(VideoRecord.from_row, rows) if record.status == "duplicate"]


@dataclass(frozen=True)
class _Earlier:
    """The content of videos.parquet that earlier runs wrote and the ledger lacks.

    Attributes:
        aside: the rows of quarantined videos and duplicates, with the columns of VIDEOS.
        further: the values of columns that are not in VIDEOS, by video_id.
    """

    aside: pa.Table
    further: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, storage: Storage) -> _Earlier:
        """Read the content. The table of an archive is large, so only the parts with such rows are read."""
        if not storage.exists(VIDEOS_FILE):
            return cls(schema.VIDEOS.empty_table(), {})
        data = storage.read(VIDEOS_FILE)
        with damage_named(storage.path(VIDEOS_FILE)):
            return cls._parsed(pq.ParquetFile(pa.BufferReader(data)))

    @classmethod
    def _parsed(cls, file: pq.ParquetFile) -> _Earlier:
        aside = [schema.VIDEOS.empty_table()]
        names = [name for name in file.schema_arrow.names if name in schema.VIDEOS.names]
        for group in range(file.num_row_groups):
            status = file.read_row_group(group, ["status"], use_threads=False)["status"]
            is_aside = pc.is_in(status, pa.array(["quarantined", "duplicate"]))
            if pc.any(is_aside).as_py():
                rows = file.read_row_group(group, names, use_threads=False).filter(is_aside)
                aside.append(rows.replace_schema_metadata(schema.VIDEOS.metadata))
        further = [name for name in file.schema_arrow.names if name not in schema.VIDEOS.names]
        rows = file.read(["video_id", *further], use_threads=False).to_pylist() if further else []
        return cls(pa.concat_tables(aside, promote_options="default"), {row.pop("video_id"): row for row in rows})


def _with_further(rows: pa.Table, further: dict[str, dict[str, Any]], inputs: Inputs) -> tuple[pa.Table, pa.Schema]:
    """Return rows of VIDEOS with the further columns of manifests, and their schema."""
    if further or inputs.table["further"].null_count < len(inputs):
        for video in inputs:
            further.pop(video.video_id, None)
            if video.further:
                further[video.video_id] = dict(video.further)
    ids = rows["video_id"].to_pylist() if further else []
    names = sorted({name for key in ids for name in further.get(key, {})})
    full = pa.schema([*schema.VIDEOS, *((name, pa.string()) for name in names)], metadata=schema.VIDEOS.metadata)
    for name in names:
        rows = rows.append_column(name, pa.array([further.get(key, {}).get(name) for key in ids], pa.string()))
    return rows, full


def write_run(storage: Storage, keys: CacheKeys, command: Sequence[str], summary: Summary) -> None:
    """Write run.json: the models and settings of the tables, and the counts of this run."""
    decision, members = keys.decision, keys.models.members
    with_rows = summary.videos.filter(pc.not_equal(summary.videos["status"].cast(pa.string()), "duplicate"))
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
        "videos_of_other_settings": summary.otherwise,
        "statuses": dict(summary.statuses),
        "skipped": summary.skipped.record(),
        "frames": {  # of the inputs of this run; every expected frame has a row, those of duplicates once
            name: pc.sum(with_rows[f"frames_{name}"]).as_py() or 0
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
