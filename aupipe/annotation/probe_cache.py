"""The results of probing, kept until the run that needs them completes, so that a restarted run probes only the rest.

OUT/_work/probed/NAME.parquet      results of some videos, each with the key of its file and of the settings
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

import aupipe
from aupipe.annotation import schema
from aupipe.annotation.inputs import Input
from aupipe.annotation.settings import AnnotateConfig, content_hash
from aupipe.annotation.stages import ProbeResult
from aupipe.parquet import read_parquet
from aupipe.storage import Storage

_FOLDER = "_work/probed"
_SCHEMA = pa.schema([("key", pa.string()), ("video_id", pa.string()), ("result", pa.string())])
# A killed run loses the results of at most this many videos or seconds.
_WRITE_VIDEOS, _WRITE_S = 256, 10.0


@dataclass
class ProbeCache:
    """The results in an output folder.

    Only videos that can be annotated are kept: a reason such as a missing file may no longer hold at the next start.

    Attributes:
        signatures: `stat_signature` of each input, by video_id. A file without one is not kept.
    """

    storage: Storage
    config: AnnotateConfig
    signatures: Mapping[str, str]
    _rows: dict[str, dict[str, str]] = field(default_factory=dict)
    _unwritten: list[dict[str, str]] = field(default_factory=list)
    _written: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, storage: Storage, config: AnnotateConfig, signatures: Mapping[str, str]) -> ProbeCache:
        """Read the results that earlier runs have written."""
        tables = [read_parquet(storage.read(name)) for name in storage.names(_FOLDER, ".parquet")]
        return cls(storage, config, signatures, {row["key"]: row for table in tables for row in table.to_pylist()})

    def get(self, video: Input) -> ProbeResult | None:
        """Return the result for this file and these settings; None if there is none."""
        row = self._rows.get(self._key(video))
        return None if row is None else ProbeResult.from_row(row)

    def add(self, video: Input, result: ProbeResult) -> None:
        """Add a result. It is written together with others."""
        key = self._key(video)
        if key and result.record is not None:
            self._unwritten.append({"key": key, **result.to_row()})
        if len(self._unwritten) >= _WRITE_VIDEOS or time.monotonic() - self._written > _WRITE_S:
            self.write()

    def write(self) -> None:
        """Write the results that were added since the last call."""
        if self._unwritten:
            name = content_hash([row["key"] for row in self._unwritten])[:24]
            table = pa.Table.from_pylist(self._unwritten, _SCHEMA)
            self.storage.write(f"{_FOLDER}/{name}.parquet", schema.to_parquet(table, _SCHEMA))
        self._unwritten, self._written = [], time.monotonic()

    def _key(self, video: Input) -> str:
        signature, config, limits = self.signatures[video.video_id], self.config, self.config.limits
        if not signature:
            return ""
        return content_hash(
            aupipe.__version__, video.uri, video.video_id, signature, video.asked(config.sample_fps),
            config.segment_s, config.alignment.smoothing_radius, config.effective_tracking.max_gap_s,
            config.assume_fps, config.media.track, limits.frame_px, limits.frames,
            limits.duration_s,
        )  # fmt: skip


def delete_all(storage: Storage) -> None:
    """Delete all results."""
    storage.delete_many(storage.names(_FOLDER))
