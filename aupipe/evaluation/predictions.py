"""Predicted probabilities with their labels, one row per face per frame: input of scores, thresholds and tables."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from aupipe import facs
from aupipe.arrays import Bools, Floats, Ints, Labels
from aupipe.data.sampler import track_edges
from aupipe.errors import DatasetError
from aupipe.evaluation.smoothing import smooth_track
from aupipe.facestore.columns import labels
from aupipe.facestore.frame_times import frame_times_s
from aupipe.parquet import read_parquet

SCHEMA = pa.schema(
    [("video_id", pa.string()), ("person", pa.string()), ("frame", pa.int32())]
    + [(f"{au}_label", pa.int8()) for au in facs.AUS]
    + [(f"{au}_prob", pa.float32()) for au in facs.AUS]
    + [(au, pa.bool_()) for au in facs.AUS],
    metadata={"schema_version": "1"},
)


@dataclass(frozen=True)
class Predictions:
    """N rows in the order of the store: by video, person, frame."""

    video_id: npt.NDArray[np.object_]
    person: npt.NDArray[np.object_]
    frame: Ints
    labels: Labels  # (N, 12)
    probabilities: Floats  # (N, 12)
    time_s: Floats | None = None  # (N,) media time, NaN if unknown; None: all are unknown
    expression_labels: Ints | None = None  # (N,) class, −1 unknown; None: the model does not predict these classes
    expressions: Floats | None = None  # (N, C) probabilities
    expression_names: tuple[str, ...] = facs.EXPRESSIONS  # of the classes, in order

    @classmethod
    def of(cls, rows: pa.Table, probabilities: Floats, expressions: Floats | None = None) -> Predictions:
        """Create predictions from label columns of a face store and probabilities (N, 12), (N, C) of the same rows."""
        return cls(
            video_id=np.asarray(rows["video_id"].to_pylist(), dtype=object),
            person=np.asarray(rows["person"].to_pylist(), dtype=object),
            frame=rows["frame"].to_numpy().astype(np.int64),
            labels=labels(rows),
            probabilities=probabilities.astype(np.float64),
            time_s=rows["time_s"].to_numpy(),
            expression_labels=None if expressions is None else rows["expression"].to_numpy().astype(np.int64),
            expressions=None if expressions is None else expressions.astype(np.float64),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes, numbers for those without a name; empty if expressions are not predicted."""
        count = 0 if self.expressions is None else self.expressions.shape[1]
        return (*self.expression_names, *map(str, range(len(self.expression_names), count)))[:count]

    def with_classes(self, names: Sequence[str], of_labels: Sequence[str]) -> Predictions:
        """Return these predictions with the names of the model's classes, and without labels of other classes.

        Args:
            names: names of the model's classes, in order.
            of_labels: names of the classes of the labels, in order.
        """
        if self.expressions is None:
            return self
        count = min(self.expressions.shape[1], len(names), len(of_labels))
        alike = tuple(names[:count]) == tuple(of_labels[:count])
        return replace(self, expression_names=tuple(names), expression_labels=self.expression_labels if alike else None)

    def of_videos(self, videos: Sequence[str] | frozenset[str]) -> Predictions:
        """Return the rows of these videos."""
        return self.where(np.isin(self.video_id, list(videos)))

    def where(self, keep: Bools) -> Predictions:
        """Return the rows for which keep (N,) is True."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        kept: dict[str, Any] = {
            name: values[keep] for name, values in columns.items() if isinstance(values, np.ndarray)
        }
        return replace(self, **kept)

    def labeled(self) -> Bools:
        """Return (N,) whether any AU of the row has a label."""
        return (self.labels != facs.UNKNOWN).any(axis=1)

    def smoothed(self, radius: int) -> Predictions:
        """Return predictions smoothed by a box mean within each track; see `smooth_track`.

        Gaps of at most `gaps.MAX_GAP_S` are interpolated linearly. A longer gap, another person or another video ends
        a track.
        """
        if radius == 0:
            return self
        result = np.empty_like(self.probabilities)
        for start, end in itertools.pairwise(track_edges(self.video_id, self.person, frames=self.frame).tolist()):
            frames, times = self.frame[start:end], None if self.time_s is None else self.time_s[start:end]
            time_s = frame_times_s(self.video_id[start], frames, times)
            result[start:end] = smooth_track(frames, time_s, self.probabilities[start:end], radius)
        return replace(self, probabilities=result)

    def video_codes(self) -> tuple[list[str], Ints]:
        """Return the distinct videos and, for each row (N,), the index of its video."""
        names, codes = np.unique(self.video_id.astype(str), return_inverse=True)
        return names.tolist(), codes

    def to_parquet(self, decided: Bools) -> bytes:
        """Return a Parquet file of `SCHEMA` with decisions `decided` (N, 12)."""
        columns = [pa.array(self.video_id, pa.string()), pa.array(self.person, pa.string()), pa.array(self.frame)]
        columns += [pa.array(column) for column in self.labels.T]
        columns += [pa.array(column.astype(np.float32)) for column in self.probabilities.T]
        columns += [pa.array(column) for column in decided.T]
        schema = SCHEMA
        if self.expressions is not None:
            names = [f"EXPR_{name}_prob" for name in self.classes]
            schema = pa.schema(
                [*SCHEMA, pa.field("EXPR_label", pa.int8()), *(pa.field(name, pa.float32()) for name in names)],
                metadata=SCHEMA.metadata,
            )
            unknown = np.full(len(self.frame), facs.UNKNOWN)
            columns += [pa.array(unknown if self.expression_labels is None else self.expression_labels)]
            columns += [pa.array(column) for column in self.expressions.T]
        arrays = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(arrays, schema=schema), sink, compression="zstd")
        return bytes(sink.getvalue())

    @classmethod
    def from_parquet(cls, data: bytes) -> Predictions:
        """Read labels and probabilities of the AUs from the bytes of a predictions.parquet. Times are not stored.

        Raises:
            DatasetError: it is no such file.
        """
        try:
            table = read_parquet(data)
        except pa.ArrowInvalid as error:
            raise DatasetError(f"no predictions.parquet: {error}".replace("\n", " ")) from None
        expected = [name for name in SCHEMA.names if name not in facs.AUS]
        if missing := [name for name in expected if name not in table.column_names]:
            raise DatasetError(f"no predictions.parquet of evaluate.py: it has no column {', '.join(missing)}")
        return cls(
            video_id=np.asarray(table["video_id"].to_pylist(), dtype=object),
            person=np.asarray(table["person"].to_pylist(), dtype=object),
            frame=table["frame"].to_numpy().astype(np.int64),
            labels=np.stack([table[f"{au}_label"].to_numpy() for au in facs.AUS], axis=1),
            probabilities=np.stack([table[f"{au}_prob"].to_numpy() for au in facs.AUS], axis=1).astype(np.float64),
        )


def align_predictions(rows: pa.Table, given: pa.Table) -> tuple[Predictions, Bools]:
    """Return predictions and decisions (N, 12) of a table for the labeled rows of a face store.

    Args:
        rows: label columns of a face store.
        given: `video_id`, `person`, `frame`, decisions `AUxx` and optionally probabilities `AUxx_prob`; without them
            the decisions serve as probabilities. Rows without a label in the store are skipped.

    Raises:
        DatasetError: a labeled row has no prediction, a row has two, or a value is no decision or no probability.
            A score over the other rows would be too high.
    """
    rows = rows.filter(pa.array((labels(rows) != facs.UNKNOWN).any(axis=1)))
    keys, labeled = _keys(given), _keys(rows)
    place = {key: number for number, key in enumerate(keys)}
    missing = [key for key in labeled if key not in place]
    if missing:
        raise DatasetError(
            f"{len(missing):,} of {len(labeled):,} labeled rows have no prediction, the first is {_name(missing[0])}; "
            "predict them, or score a --split that is predicted whole"
        )
    if len(place) < len(keys):
        times = Counter(keys)
        if twice := [key for key in labeled if times[key] > 1]:
            raise DatasetError(
                f"{_name(twice[0])} is predicted {times[twice[0]]} times; fix: give one row for each face and frame"
            )
    chosen = given.take(np.array([place[key] for key in labeled], dtype=np.int64))
    decided = np.stack([_decisions(chosen, au) for au in facs.AUS], axis=1)
    probabilities = _probabilities(chosen)
    return Predictions.of(rows, decided.astype(np.float64) if probabilities is None else probabilities), decided


def _name(key: tuple[str, str, int]) -> str:
    video, person, frame = key
    return f"frame {frame} of {video} {person}".rstrip()


def _decisions(given: pa.Table, au: str) -> Bools:
    """Return the decisions (N,) of an AU, which are booleans, or 0 and 1."""
    values = np.asarray(given[au].to_pylist(), dtype=object)
    wrong = [value for value in values if value is None or value not in (0, 1)]
    if wrong:
        raise DatasetError(
            f"{au} of the predictions has {wrong[0]!r} (true, false, 0 or 1 in each row); fix: decide each row, and "
            f"name a column of probabilities {au}_prob"
        )
    return values.astype(bool)


def _probabilities(given: pa.Table) -> Floats | None:
    """Return the probabilities (N, 12); None if there are none."""
    names = [f"{au}_prob" for au in facs.AUS]
    missing = [name for name in names if name not in given.column_names]
    if len(missing) == len(names):
        return None
    if missing:
        raise DatasetError(f"the predictions have probabilities of some AUs only; add the columns {', '.join(missing)}")
    columns = []
    for name in names:
        try:
            values = given[name].cast(pa.float64()).to_numpy()  # null becomes NaN
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # text that is no number, or lists
            raise DatasetError(f"{name} of the predictions is {given[name].type} (numbers 0 … 1)") from None
        if len(wrong := values[~((values >= 0) & (values <= 1))]):
            raise DatasetError(f"{name} of the predictions has {wrong[0]:g} (0 … 1 in each row)")
        columns.append(values)
    return np.stack(columns, axis=1)


def _keys(table: pa.Table) -> list[tuple[str, str, int]]:
    return list(zip(*(table[name].to_pylist() for name in ("video_id", "person", "frame")), strict=True))
