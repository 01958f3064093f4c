"""Training and evaluation samples of a task: rows of a store, their targets, and clips over them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from aupipe import facs
from aupipe.arrays import Bools, Floats, Ints
from aupipe.config import Section
from aupipe.data import clips, sampler, splits
from aupipe.data.clips import Clips
from aupipe.data.sampler import Task
from aupipe.errors import DatasetError
from aupipe.facestore.columns import intensities, labels
from aupipe.facestore.folds import held_out, video_positives
from aupipe.facestore.frame_times import frame_times_s
from aupipe.facestore.read import FaceStore

Targets = npt.NDArray[Any]


class DataConfig(Section):
    """Selection of the rows that a task is trained on."""

    store: str | None = None  # a face store other than --data
    add: tuple[str, ...] = ()  # face stores, e.g. of BP4D, whose train rows are added; AUs they lack are unknown
    every_n: int = Field(default=1, ge=1)  # use every n-th frame …
    rare_n: int | None = Field(default=None, ge=1)  # … and every rare_n-th if a rare AU is on
    # Classes of the store beyond those of the model, whose rows are not trained on or scored, e.g. Other or Contempt.
    ignore: tuple[str, ...] = ()
    videos_are_people: bool = False  # for identity: a base video without identity labels counts as one person
    balance_classes: float = Field(default=0, ge=0, le=1)  # 1: all classes equally often; 0: as often as in the data
    clip_frames: int = Field(default=1, ge=1)  # 1: single frames
    clip_stride: int | None = Field(default=None, ge=1)  # None: adjacent clips without overlap
    subset: float | None = Field(default=None, gt=0, le=1)  # share of the clips
    subset_choice: Literal["rare", "uniform"] = "rare"  # clips with more of the rarest AUs, or any
    # Train on AU intensities times this factor, clipped to 1, instead of labels; the store must contain intensities.
    intensity: float | None = Field(default=None, gt=0)
    leak: splits.LeakFilter = "drop_train"  # videos that are in train for this task and in validation for another
    held_out: float = Field(default=0.1, ge=0, le=0.5)  # share of the videos held out to fit thresholds and smoothing
    window_groups: int = Field(default=32, ge=1)  # row groups of about 256 rows that are shuffled together
    shuffled_labels: bool = False  # a check: a model trained on shuffled labels must stay at the floor

    @field_validator("leak", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads `off` as false

    @model_validator(mode="after")
    def _one_way(self) -> DataConfig:
        if self.balance_classes and self.clip_frames > 1:
            raise ValueError("balance_classes draws single frames; set clip_frames=1")
        if self.subset is not None and (self.balance_classes or self.clip_stride is not None):
            raise ValueError("subset chooses from adjacent clips; leave out balance_classes and clip_stride")
        if self.intensity is not None and self.shuffled_labels:
            raise ValueError("shuffled_labels shuffles labels, which intensity does not use; leave out one")
        return self


@dataclass(frozen=True)
class Tracks:
    """R rows of a store, grouped by track."""

    split: str  # the store's split in which rows are numbered
    rows: Ints  # (R,) numbers of the rows, ascending
    time_s: Floats  # (R,) media time; computed from the frame number if the store has none
    offsets: Ints  # of the tracks (see `sampler.track_edges`)
    videos: tuple[str, ...]  # the base video of each track

    def videos_of(self, places: Ints) -> list[str]:
        """Return the base videos of the rows at these places 0 … R−1."""
        return [self.videos[track] for track in np.searchsorted(self.offsets, places, side="right") - 1]

    def part(self, first: int, last: int) -> Tracks:
        """Return tracks first … last−1."""
        span = slice(int(self.offsets[first]), int(self.offsets[last]))
        edges = self.offsets[first : last + 1] - span.start
        return Tracks(self.split, self.rows[span], self.time_s[span], edges, self.videos[first:last])


@dataclass(frozen=True)
class Samples:
    """R labeled rows of a store. An epoch consists of N clips of S of these rows; a single frame is a clip of one."""

    tracks: Tracks
    frames: Ints  # (R,) frame numbers in the video
    targets: Targets  # (R, 12) int8 for au, else (R,) int64; −1 unknown
    intensities: Targets | None = None  # (R, 12) float32 0 … 1, training targets instead of the labels
    held_out_videos: tuple[str, ...] = ()

    @property
    def videos(self) -> tuple[str, ...]:
        """Base videos of the rows, sorted."""
        return tuple(sorted(set(self.tracks.videos)))

    @property
    def train_targets(self) -> Targets:
        """Training target of each row: its intensities if there are any, otherwise its labels."""
        return self.targets if self.intensities is None else self.intensities

    @property
    def positive_rates(self) -> Floats:
        """(12,) share of positives among the known AU labels; 0 for an AU without a label."""
        return (self.targets == 1).sum(axis=0) / np.maximum((self.targets != facs.UNKNOWN).sum(axis=0), 1)

    @property
    def classes(self) -> int:
        """Number of classes or identities."""
        return int(self.targets.max()) + 1

    def clips(self, data: DataConfig, *, seed: int, epoch: int) -> Clips:
        """Return the clips of an epoch in row order. Their number is the same in every epoch."""
        if data.balance_classes:
            chosen = class_balanced(self.targets, balance=data.balance_classes, seed=seed, epoch=epoch)
            return clips.single(len(self.targets)).take(chosen)
        if data.clip_stride is not None:
            return clips.windows(self.tracks.offsets, data.clip_frames, stride=data.clip_stride, seed=seed, epoch=epoch)
        if data.clip_frames == 1 and data.subset is None:
            return clips.single(len(self.targets))
        cut = clips.runs(self.tracks.offsets, data.clip_frames)
        if data.subset is None:
            return cut
        if data.subset_choice == "uniform":
            return cut.take(sampler.uniform_subset(len(cut), data.subset, seed=seed))
        positives = ((self.targets[cut.rows] == 1) & cut.valid[..., None]).sum(axis=1)
        return cut.take(sampler.balanced_subset(positives, data.subset))


def train_samples(
    index: FaceStore, data: DataConfig, task: Task, split: str = splits.OFFICIAL,
    classes: int = len(facs.EXPRESSIONS),
) -> Samples:  # fmt: skip
    """Return the training rows of a task: those of the split's training part without the store's held-out videos.

    Args:
        classes: number of expressions; a label beyond them is unknown (see `DataConfig.ignore`).

    Raises:
        DatasetError: there are no such rows.
    """
    part = splits.train_part(index, split, data.leak)
    table = _table(index, part, task, data.videos_are_people)
    # A fold of people is only scored. Nothing is tuned on it, so no further videos are held out.
    own = table.filter(pc.less(table["row"], index.without_extra.rows(part.split)))
    held_out_videos = frozenset() if splits.is_people(split) else held_out(video_positives(own), data.held_out)
    table = table.filter(pa.array(~splits.SplitPart(part.split, held_out_videos).mask(table["video_id"])))
    if data.rare_n is None:
        # Frames are thinned by number before rows without a label are dropped, so that gaps do not shift the pattern.
        table = table.filter(pa.array(sampler.every_nth(_frames(table), data.every_n)))
        table = table.filter(_known(table, task, classes))
    else:
        table = table.filter(_known(table, task, classes))
        kept = sampler.every_nth_and_rare(_edges(table), labels(table), data.every_n, data.rare_n)
        table = table.filter(pa.array(kept))
    found = _samples(index, part.split, table, task, tuple(sorted(held_out_videos)), data.shuffled_labels)
    return found if data.intensity is None else replace(found, intensities=_intensities(index, found, data.intensity))


def eval_samples(
    index: FaceStore, split: str, task: Task, classes: int = len(facs.EXPRESSIONS), leak: splits.LeakFilter = "off"
) -> Samples:
    """Return the labeled rows of the split's evaluation part; `classes` as in `train_samples`.

    Raises:
        DatasetError: there are no such rows.
    """
    part = splits.eval_part(index, split, leak)
    table = _table(index, part, task)
    return _samples(index, part.split, table.filter(_known(table, task, classes)), task)


def class_balanced(targets: Targets, *, balance: float, seed: int, epoch: int) -> Ints:
    """Draw the samples (N,) of an epoch, ascending, such that class c has a share ∝ n_c^(1 − balance).

    Samples of a rare class repeat; those of a frequent class differ from epoch to epoch.
    """
    rng = np.random.default_rng(sampler.seed_of(seed, "balance", epoch))
    classes, counts = np.unique(targets, return_counts=True)
    ends = np.cumsum(counts ** (1.0 - balance))
    ends = np.rint(ends / ends[-1] * len(targets)).astype(np.int64)
    chosen = []
    for each, count in zip(classes, np.diff(ends, prepend=0), strict=True):
        members = rng.permutation(np.flatnonzero(targets == each))
        chosen.append(np.resize(members, count))
    return np.sort(np.concatenate(chosen))


def _table(index: FaceStore, part: splits.SplitPart, task: Task, videos_are_people: bool = False) -> pa.Table:
    """Return the part's rows (see `rows_of`) and, for identities, their `class`, numbered by name."""
    table = rows_of(index, part)
    if task == "identity":
        if videos_are_people:
            person = pc.coalesce(
                table["identity"], pc.binary_join_element_wise(table["video_id"], table["person"], "/")
            )
            table = table.set_column(table.schema.get_field_index("identity"), "identity", person)
        table = table.append_column("class", pc.rank(table["identity"], "ascending", tiebreaker="dense"))
    return table


def _intensities(index: FaceStore, found: Samples, factor: float) -> Targets:
    """Return the intensities (R, 12) of the samples' rows times a factor, clipped to 1."""
    pool = found.tracks.split
    values = None
    if index.has(pool, "intensity"):
        values = intensities(index.labels(pool, ("intensity",)).take(pa.array(found.tracks.rows)))
    if values is None:
        raise DatasetError(
            f"{index.storage.root}: data.intensity is set, but the store has no AU intensities; "
            "leave it out, or make the store from a manifest with columns AU01_intensity …"
        )
    return np.minimum(values * np.float32(factor), 1)


def _known(table: pa.Table, task: Task, classes: int) -> pa.Array:
    if task == "au":
        return pa.array((labels(table) != facs.UNKNOWN).any(axis=1))
    if task == "identity":
        return pc.is_valid(table["identity"])
    return pc.and_(pc.greater_equal(table["expression"], 0), pc.less(table["expression"], classes))


def _targets(table: pa.Table, task: Task) -> Targets:
    if task == "au":
        return labels(table)
    return _ints(table["expression"]) if task == "expr" else _ints(table["class"]) - 1


def _frames(table: pa.Table) -> Ints:
    return _ints(table["frame"])


def _ints(column: pa.ChunkedArray) -> Ints:
    return column.to_numpy().astype(np.int64)


def rows_of(index: FaceStore, part: splits.SplitPart) -> pa.Table:
    """Return the rows of a part without images; column `row` is their number in its pool."""
    table = index.labels(part.split)
    table = table.append_column("row", pa.array(np.arange(len(table))))
    return table.filter(pa.array(part.mask(table["video_id"])))


def tracks(pool: str, table: pa.Table) -> Tracks:
    """Return the tracks of rows of a pool; `table` as from `rows_of`."""
    frames, edges, known_s = _frames(table), _edges(table), table["time_s"].to_numpy()
    names = table["video_id"].take(edges[:-1]).to_pylist()
    spans = zip(names, itertools.pairwise(edges.tolist()), strict=True)
    time_s = [frame_times_s(name, frames[a:b], known_s[a:b]) for name, (a, b) in spans]
    return Tracks(pool, _ints(table["row"]), np.concatenate([np.empty(0), *time_s]), edges, tuple(names))


def _edges(table: pa.Table) -> Ints:
    return sampler.track_edges(*(_codes(table[name]) for name in ("video_id", "person")), frames=_frames(table))


def _codes(column: pa.ChunkedArray) -> Bools:
    return column.combine_chunks().dictionary_encode().indices.to_numpy()


def _samples(
    index: FaceStore, pool: str, table: pa.Table, task: Task, held_out_videos: tuple[str, ...] = (),
    shuffled: bool = False,
) -> Samples:  # fmt: skip
    if not len(table):
        raise DatasetError(
            f"{index.storage.root}: split {pool!r} has no rows with a label for {task} to train on or to score"
        )
    targets = _targets(table, task)
    if shuffled:
        targets = np.random.default_rng(0).permutation(targets)
    return Samples(tracks(pool, table), _frames(table), targets, held_out_videos=held_out_videos)
