"""The tables of an annotation in memory, as the Python API returns them, with their pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe import facs
from aupipe.annotation.draw import draw_faces
from aupipe.errors import ConfigError
from aupipe.media.frames import frame_at
from aupipe.media.probe import probe

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]
    from matplotlib.figure import Figure

ARRAY_ID = "array"  # video_id and uri of frames that were given as an array


@dataclass(frozen=True, eq=False)
class Annotation:
    """The tables of an annotation, as `annotate.py` writes them.

    Attributes:
        frames: one row per face per frame, and one row for a frame without a face or not decoded (`schema.FRAMES`).
        events: one row per event: a run of frames in which an AU of a face is active (`schema.EVENTS`).
        videos: one row per input, with its status and reason (`schema.VIDEOS`).
        thresholds: of each AU; a probability that reaches it is a positive decision. {}: several models voted, each
            with its own thresholds.
    """

    frames: pa.Table
    events: pa.Table
    videos: pa.Table
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def video(self) -> dict[str, Any]:
        """The row of `videos` of the one input.

        Raises:
            ConfigError: there are several inputs.
        """
        if len(self.videos) != 1:
            raise ConfigError(f"video: {len(self.videos)} inputs (1); use .videos, a table of all")
        return dict(self.videos.to_pylist()[0])

    def to_pandas(self) -> pandas.DataFrame:
        """Return `frames` as a pandas DataFrame, in which decisions are `boolean`, so that they select rows.

        With frames without a face they would be objects otherwise, and `~` would not negate them.
        """
        import pandas

        return self.frames.to_pandas(types_mapper={pa.bool_(): pandas.BooleanDtype()}.get)

    def plot(self, *, video_id: str | None = None, face_id: int | None = None, aus: Sequence[str] = facs.AUS) -> Figure:
        """Return a figure of the AUs of one face over time.

        Per AU it has the probability (thin), the smoothed probability (bold), the threshold (dotted) and the events
        (bars). Time is in seconds, or in frames where the input has no clock.

        Args:
            video_id: the input; None: the first one with a face.
            face_id: the face; None: the one in most frames.

        Example:
            >>> figure = aupipe.annotate("clip.mp4").plot(aus=["AU12", "AU25"])
            >>> figure.savefig("clip.png")
        """
        from aupipe.annotation.plot import timeline

        return timeline(self.frames, self.events, self.thresholds, self._with_rows(video_id), face_id, aus)

    def draw(self, frame: int, *, video_id: str | None = None) -> np.ndarray:
        """Return a frame (H, W, 3) uint8 RGB with the boxes, ids and AU bars of its faces.

        Args:
            frame: its number, from 0, as in `frames`.
            video_id: the input; None: the first one.

        Raises:
            ConfigError: there is no such input or frame, or the input was an array.
            MediaError: the video cannot be read any more.

        Example:
            >>> picture = aupipe.annotate("clip.mp4").draw(10)
        """
        found = [row for row in self.videos.to_pylist() if video_id in (None, row["video_id"])]
        if not found:
            raise ConfigError(f"video_id: {video_id} (an input of .videos)")
        uri, track, name = found[0]["uri"], found[0]["track"], self._with_rows(found[0]["video_id"])
        if uri == ARRAY_ID:
            raise ConfigError("draw: the input was an array (a file is required); fix: annotate a file")
        mine = pc.and_(pc.equal(self.frames["video_id"], name), pc.equal(self.frames["frame"], frame))
        rows = [row for row in self.frames.filter(mine).to_pylist() if row["face_id"] is not None]
        info = probe(uri, track=track)
        image = frame_at(uri, info, frame)
        if image is None:
            raise ConfigError(f"frame: {frame} of {name} (a decoded frame of 0 … {info.frames_expected - 1})")
        return draw_faces(image, rows, self.thresholds)

    def _with_rows(self, video_id: str | None) -> str | None:
        """Return the input that has the rows of this one: of a duplicate the first input with the same bytes."""
        firsts = dict(zip(*(self.videos[name].to_pylist() for name in ("video_id", "duplicate_of")), strict=True))
        return firsts.get(video_id) or video_id

    def _repr_html_(self) -> str:
        """Return a short table for notebooks: per AU the share of positive faces and the number of events."""
        events = self.events["au"].to_pylist()
        rows = []
        for au in facs.AUS:
            decided = self.frames[au].drop_null()
            share = f"{sum(decided.to_pylist()) / len(decided):.0%}" if len(decided) else "–"
            rows.append(f"<tr><td>{au}</td><td>{share}</td><td>{events.count(au)}</td></tr>")
        status = ", ".join(f"{row['video_id']}: {row['status']}" for row in self.videos.slice(0, 5).to_pylist())
        more = f" and {len(self.videos) - 5} more" if len(self.videos) > 5 else ""
        return (
            f"<p>{html.escape(status + more)}; {len(self.frames)} rows</p>"
            f"<table><tr><th>AU</th><th>positive</th><th>events</th></tr>{''.join(rows)}</table>"
        )
