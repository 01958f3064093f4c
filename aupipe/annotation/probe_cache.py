"""The results of probing, kept until the run that needs them completes, so that a restarted run probes only the rest.

OUT/_work/probed/NAME.parquet      results of some videos, each with the key of its file and of the settings
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

import pyarrow as pa

import aupipe
from aupipe.annotation import probed
from aupipe.annotation.inputs import Input, Inputs
from aupipe.annotation.probed import Probed
from aupipe.annotation.record_columns import concat, table_of_rows
from aupipe.annotation.schema import to_parquet
from aupipe.annotation.segments import SAMPLING
from aupipe.annotation.settings import AnnotateConfig, ContentHash, content_hash
from aupipe.annotation.stages import ProbeResult
from aupipe.annotation.video_rows import one_piece, rows_of, take_rows
from aupipe.parquet import read_stored
from aupipe.storage import Storage

_FOLDER = "_work/probed"
_SCHEMA = pa.schema([("key", pa.string()), *probed.SCHEMA])
# A killed run loses the results of at most this many videos or seconds.
_WRITE_VIDEOS, _WRITE_S = 256, 10.0


class ProbeCache:
    """The results in an output folder.

    Only videos that can be annotated are kept: a reason such as a missing file may no longer hold at the next start.
    A file without a signature is not kept.
    """

    def __init__(self, storage: Storage, config: AnnotateConfig) -> None:
        self._config, self._storage = config, storage
        self._unwritten: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def read(self, inputs: Inputs) -> Probed:
        """Read the results of these inputs that earlier runs with the same settings have written."""
        tables = [read_stored(self._storage, name) for name in self._storage.names(_FOLDER, ".parquet")]
        # Tables of other versions have other columns.
        table = concat((each for each in tables if each.schema.equals(_SCHEMA)), _SCHEMA)
        if not len(table):
            return Probed()
        found = rows_of(one_piece(table["key"]), pa.array(map(self._key, inputs), pa.string()))
        return Probed([take_rows(table.drop_columns("key"), found[found >= 0])])

    def add(self, video: Input, result: ProbeResult) -> None:
        """Add a result. It is written together with others."""
        key = self._key(video)
        if key is not None and result.record is not None:
            self._unwritten.append({"key": key, **probed.to_row(result)})
        if len(self._unwritten) >= _WRITE_VIDEOS or time.monotonic() - self._written > _WRITE_S:
            self.write()

    def write(self) -> None:
        """Write the results that were added since the last call."""
        if self._unwritten:
            name = content_hash([row["key"] for row in self._unwritten])[:24]
            data = to_parquet(table_of_rows(self._unwritten, _SCHEMA), _SCHEMA)
            self._storage.write(f"{_FOLDER}/{name}.parquet", data)
        self._unwritten, self._written = [], time.monotonic()

    def _key(self, video: Input) -> str | None:
        if not video.signature:
            return None
        return self._hash(video.uri, video.video_id, video.signature, video.asked(self._config.sample_fps))

    @cached_property
    def _hash(self) -> ContentHash:
        config, limits = self._config, self._config.limits
        return ContentHash(
            aupipe.__version__, config.segment_s, config.alignment.smoothing_radius,
            config.effective_tracking.max_gap_s, config.assume_fps, config.media.track, limits.frame_px, limits.frames,
            limits.duration_s, config.search.every, *([] if config.sample_fps is None else [SAMPLING]),
        )  # fmt: skip


def delete_all(storage: Storage) -> None:
    """Delete all results."""
    storage.delete_many(storage.names(_FOLDER))
