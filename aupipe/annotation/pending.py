"""The videos to extract, in columns: a record and segments are made only for those that a worker gets next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe.annotation import probed
from aupipe.annotation.cache_keys import CacheKeys
from aupipe.annotation.inputs import Inputs
from aupipe.annotation.segments import Segment
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_record import VideoRecord
from aupipe.annotation.video_rows import VideoRows, take_rows
from aupipe.errors import AupipeError

# The record of a video to extract, and its segments with their keys, in time order.
PendingVideo = tuple[VideoRecord, list[tuple[str, Segment]]]


class Pending(VideoRows[PendingVideo]):
    """The videos to extract.

    Attributes:
        frames: (n,) expected number of frames of each row.
        segments: (n,) number of segments of each row.
    """

    def __init__(self, inputs: Inputs, results: pa.Table, keys: CacheKeys) -> None:
        """Create the collection of inputs in the order of their video_id.

        Args:
            results: of the inputs, in their order; a table of `probed.SCHEMA`.
        """
        super().__init__(inputs.ids)
        self._inputs, self._results, self._keys = inputs, results, keys
        self._model_sha256 = keys.models.sha256
        self._records: dict[str, VideoRecord] = {}
        self.frames = results["frames_expected"].fill_null(0).to_numpy()
        self.segments = pc.list_value_length(results["segments"]).to_numpy()

    def take(self, rows: np.ndarray) -> list[PendingVideo]:
        inputs = list(self._inputs.take(rows))
        results = probed.to_results(self._results.take(pa.array(rows)), inputs)
        return [
            self._pending(video.signature or "", result) for video, result in zip(inputs, results, strict=True)
        ]  # fmt: skip

    def subset(self, rows: np.ndarray) -> Pending:
        """Return the videos of rows (n,), ascending."""
        return Pending(self._inputs.take(rows), take_rows(self._results, rows), self._keys)

    def change(self, record: VideoRecord) -> None:
        """Set the record of a video."""
        self._records[record.video_id] = record

    def drop_changes(self, video_ids: Iterable[str]) -> None:
        """Drop the changed records of finished videos, because the ledger has them."""
        for video_id in video_ids:
            self._records.pop(video_id, None)

    def _pending(self, signature: str, result: ProbeResult) -> PendingVideo:
        keys = self._keys
        if result.record is None:
            raise AupipeError(f"{result.video_id}: no record of a video to extract; fix: run the same command again")
        source_hash = result.record.source_hash
        record = self._records.get(result.video_id) or replace(
            result.record, stat_signature=signature, head_key=keys.head_key, decide_key=keys.decide_key, attempts=1,
            model_sha256=self._model_sha256,
        )  # fmt: skip
        return record, [(keys.segment(source_hash, segment), segment) for segment in result.segments]
