"""Predicted probabilities beside their labels, row by row: what evaluation writes and thresholds are fitted on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from aupipe import facs
from aupipe.annotation.smoothing import box_mean
from aupipe.learning.metrics import Bools, Floats, Ints, Labels

SCHEMA = pa.schema(
    [("video_id", pa.string()), ("person", pa.string()), ("frame", pa.int32())]
    + [(f"{au}_label", pa.int8()) for au in facs.AUS]
    + [(f"{au}_prob", pa.float32()) for au in facs.AUS]
    + [(au, pa.bool_()) for au in facs.AUS],
    metadata={"schema_version": "1"},
)


@dataclass(frozen=True)
class Predictions:
    """N rows, in the store's order: by video, person, frame."""

    video_id: npt.NDArray[np.object_]
    person: npt.NDArray[np.object_]
    frame: Ints
    labels: Labels  # (N, 12)
    probabilities: Floats  # (N, 12)

    @classmethod
    def of(cls, rows: pa.Table, probabilities: Floats) -> Predictions:
        """From label columns of a face store and probabilities (N, 12) of the same rows."""
        return cls(
            video_id=np.asarray(rows["video_id"].to_pylist(), dtype=object),
            person=np.asarray(rows["person"].to_pylist(), dtype=object),
            frame=rows["frame"].to_numpy().astype(np.int64),
            labels=au_labels(rows),
            probabilities=probabilities.astype(np.float64),
        )

    def of_videos(self, videos: Sequence[str] | frozenset[str]) -> Predictions:
        """The rows of these videos."""
        keep = np.isin(self.video_id, list(videos))
        return Predictions(
            self.video_id[keep], self.person[keep], self.frame[keep], self.labels[keep], self.probabilities[keep]
        )

    def smoothed(self, radius: int) -> Predictions:
        """Box mean over time within each track; a missing frame, another person and another video end a track."""
        if radius == 0:
            return self
        result = np.empty_like(self.probabilities)
        for start, end in self._tracks():
            result[start:end] = box_mean(self.probabilities[start:end], np.ones(end - start, dtype=bool), radius)
        return replace(self, probabilities=result)

    def video_codes(self) -> tuple[list[str], Ints]:
        """The distinct videos and, for each row (N,), which of them it is from."""
        names, codes = np.unique(self.video_id.astype(str), return_inverse=True)
        return names.tolist(), codes

    def to_parquet(self, decided: Bools) -> bytes:
        """A Parquet file of `SCHEMA`; decided (N, 12)."""
        columns = [pa.array(self.video_id, pa.string()), pa.array(self.person, pa.string()), pa.array(self.frame)]
        columns += [pa.array(column) for column in self.labels.T]
        columns += [pa.array(column.astype(np.float32)) for column in self.probabilities.T]
        columns += [pa.array(column) for column in decided.T]
        arrays = [column.cast(field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(arrays, schema=SCHEMA), sink, compression="zstd")
        return bytes(sink.getvalue())

    def _tracks(self) -> list[tuple[int, int]]:
        """[start, end) of rows of one person in consecutive frames."""
        if not len(self.frame):
            return []
        cut = np.diff(self.frame) != 1
        for column in (self.video_id, self.person):
            cut |= column[1:] != column[:-1]
        edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(self.frame)]
        return list(itertools.pairwise(edges))


def au_labels(rows: pa.Table) -> Labels:
    """The `au` column of face-store rows as (N, 12) int8."""
    flat = rows["au"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.int8).reshape(-1, len(facs.AUS))
