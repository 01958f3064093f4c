"""Events: stretches in which an AU of a face is on, with onset, apex and offset in media time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from aupipe import facs
from aupipe.annotation.schema import EVENTS, PROB
from aupipe.annotation.settings import EventsConfig
from aupipe.annotation.tracks import gap_times_s


def find_events(frames: pa.Table, config: EventsConfig) -> pa.Table:
    """The events in the decided frames table of one video, by face, AU and onset."""
    ids = frames["face_id"].fill_null(-1).to_numpy()
    times = gap_times_s(frames)  # for distances alone: a time that is not known stays null in the table
    numbers = frames["frame"].to_numpy()
    known = frames["time_s"].to_pylist()
    rows: list[dict[str, object]] = []
    video_id = frames["video_id"][0].as_py() if len(frames) else ""
    for face in np.unique(ids[ids >= 0]).tolist():
        mine = np.flatnonzero(ids == face)
        for au, prob in zip(facs.AUS, PROB, strict=True):
            on = mine[np.asarray(frames[au].fill_null(False).to_numpy(zero_copy_only=False), bool)[mine]]
            if not len(on):
                continue
            probability = np.asarray(frames[prob].to_numpy(zero_copy_only=False))
            for run in np.split(on, np.flatnonzero(np.diff(times[on]) > config.max_gap_s) + 1):
                first, last = run[0], run[-1]
                if times[last] - times[first] >= config.min_duration_s:
                    peak = run[np.argmax(probability[run])]
                    rows.append({
                        "video_id": video_id, "face_id": face, "au": au,
                        "onset_s": known[first], "apex_s": known[peak], "offset_s": known[last],
                        "peak": probability[peak], "mean": probability[run].mean(),
                        "onset_frame": numbers[first], "apex_frame": numbers[peak], "offset_frame": numbers[last],
                    })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=EVENTS)
