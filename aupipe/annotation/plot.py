"""The AUs of one face over time as a figure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aupipe import facs
from aupipe.errors import ConfigError
from aupipe.evaluation.plot import caption

_ROW_INCHES = 0.9
_BAR = -0.12  # height of the event bars, below the axis of probabilities


class _Timeline(Figure):
    """A figure that notebooks show. They show other figures only once matplotlib.pyplot is imported."""

    def _repr_png_(self) -> bytes:
        sink = io.BytesIO()
        self.savefig(sink, format="png")
        return sink.getvalue()


def timeline(
    frames: pa.Table, events: pa.Table, thresholds: Mapping[str, float], video_id: str | None = None,
    face_id: int | None = None, aus: Sequence[str] = facs.AUS,
) -> Figure:  # fmt: skip
    """Return a figure with one axis per AU: raw and smoothed probability, threshold and events.

    Args:
        frames, events: the tables of an annotation.
        thresholds: of each AU.
        video_id, face_id: None: the first video with a face, and its face in most frames.

    Raises:
        ConfigError: there is no such AU, or no row of such a face.
    """
    unknown = [au for au in aus if au not in facs.AUS]
    if unknown or not aus:
        raise ConfigError(f"aus: {', '.join(unknown) or 'none'} ({', '.join(facs.AUS)})")
    faces = frames.filter(pc.is_valid(frames["face_id"]))
    if video_id is None and len(faces):
        video_id = faces["video_id"][0].as_py()
    faces = faces.filter(pc.equal(faces["video_id"], pa.scalar(video_id, pa.string())))
    if face_id is None and len(faces):
        ids, counts = np.unique(faces["face_id"].to_numpy(), return_counts=True)
        face_id = int(ids[counts.argmax()])
    track = faces.filter(pc.equal(faces["face_id"], pa.scalar(face_id, pa.int32())))
    if not len(track):
        raise ConfigError(f"video_id, face_id: {video_id}, {face_id} (a face of .frames)")
    events = events.filter(pc.and_(pc.equal(events["video_id"], video_id), pc.equal(events["face_id"], face_id)))
    in_seconds = track["time_s"].null_count == 0
    x = track["time_s" if in_seconds else "frame"].to_numpy()
    ends = ("onset_s", "offset_s") if in_seconds else ("onset_frame", "offset_frame")

    figure = _Timeline(figsize=(9, 1.0 + _ROW_INCHES * len(aus)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(aus), sharex=True, squeeze=False)[:, 0]
    for axes, au in zip(rows, aus, strict=True):
        axes.plot(x, track[f"{au}_raw"].to_numpy(), color="#8fb3d1", linewidth=0.7, label="probability")
        axes.plot(x, track[f"{au}_prob"].to_numpy(), color="#1f4e79", linewidth=1.8, label="smoothed")
        if au in thresholds:
            axes.axhline(thresholds[au], color="#222222", linestyle=":", linewidth=0.8, label="threshold")
        mine = events.filter(pc.equal(events["au"], au))
        onsets, offsets = (mine[name].to_numpy() for name in ends)
        axes.hlines([_BAR] * len(mine), onsets, offsets, color="#cc3344", linewidth=5, label="event")
        axes.set(ylim=(-0.22, 1.05), yticks=(0, 1), ylabel=au)
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlabel("time (s)" if in_seconds else "frame")
    rows[0].set_title(f"{caption(str(video_id), 48)}, face {face_id}", loc="left", fontsize="medium")
    rows[0].legend(ncols=4, fontsize="small", frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    return figure
