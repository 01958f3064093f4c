"""The record of a video: a row of videos.parquet, with the fields that decide whether work is due."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """The record of a video in the ledger and in videos.parquet. A field at its default is unknown.

    Attributes:
        stat_signature: `stat_signatures.stat_signature` of its file when it was probed.
        source_hash, head_key, decide_key: see `CacheKeys`.
        losses: the reasons for `partial` that the container gives, before any frame is decoded.
        loss_if_corrupt: a further such reason, which holds if some frame is corrupt.

    `schema.VIDEOS` describes the other fields.
    """

    uri: str
    video_id: str
    stat_signature: str = ""
    fingerprint: str = ""
    source_hash: str = ""
    head_key: str = ""
    decide_key: str = ""
    losses: tuple[str, ...] = ()
    loss_if_corrupt: str = ""
    status: str | None = None
    reason: str | None = None
    frames_expected: int | None = None
    frames_decoded: int | None = None
    frames_lost: int | None = None
    frames_corrupt: int | None = None
    faces: int | None = None
    duration_s: float | None = None
    rotation: int | None = None
    variable_frame_rate: bool | None = None
    work_s: float | None = None
    attempts: int | None = None
    duplicate_of: str | None = None
    model_sha256: str | None = None
    frame_width: int | None = None
    frame_height: int | None = None
    pixel_aspect: str | None = None
    hdr: str | None = None
    track: int | None = None
    tracks: int | None = None
    clock_restarts: int | None = None
    remark: str | None = None

    @property
    def has_rows(self) -> bool:
        """True if the status is `ok` or `partial`."""
        return self.status in ("ok", "partial")

    def to_row(self) -> dict[str, Any]:
        """Return the known fields, for JSON and Parquet."""
        values = {name: getattr(self, name) for name in _DEFAULTS}
        row = {name: value for name, value in values.items() if value != _DEFAULTS[name]}
        return row | {"losses": list(self.losses)} if self.losses else row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> VideoRecord:
        """Read the record from a row, which may have further columns.

        Rows of older versions have `content` for `source_hash`, or neither.
        """
        known = {name: row[name] for name in _DEFAULTS if row.get(name) is not None}
        # A run holds a record for every video of an archive, so records share the texts that repeat.
        known |= {name: sys.intern(known[name]) for name in REPEATING if name in known}
        known["losses"] = tuple(known.get("losses", ()))
        source_hash = known.get("source_hash") or row.get("content")
        fingerprint = known.get("fingerprint", "")
        known["source_hash"] = fingerprint if source_hash in (None, "", fingerprint) else source_hash
        return cls(**known)


# Fields whose texts repeat from video to video.
REPEATING = (
    "status", "reason", "head_key", "decide_key", "model_sha256", "pixel_aspect", "hdr", "remark", "loss_if_corrupt",
)  # fmt: skip
_DEFAULTS = {field.name: field.default for field in fields(VideoRecord)}
