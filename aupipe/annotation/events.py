"""Events: intervals in which an AU of a face is active, with onset, apex and offset in media time."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter

import numpy as np
import pyarrow as pa

from aupipe import facs
from aupipe.annotation.schema import EVENTS, PROB
from aupipe.annotation.settings import EventsConfig
from aupipe.annotation.tracks import gap_times_s, longest_gap_s, rows_of_faces


def find_events(frames: pa.Table, config: EventsConfig, thresholds: Mapping[str, float]) -> pa.Table:
    """Return the events of one video from its frames table, ordered by face, AU and onset.

    Args:
        thresholds: of every AU. They matter only with hysteresis: frames are positive as `AUxx` says.
    """
    ids = frames["face_id"].fill_null(-1).to_numpy()
    times = gap_times_s(frames)  # These only measure distances; an unknown time stays null in the table.
    numbers = frames["frame"].to_numpy()
    media_times = frames["time_s"].to_pylist()
    gap_s = longest_gap_s(frames, times, config.max_gap_s)
    tracks = list(rows_of_faces(ids))
    rows: list[dict[str, object]] = []
    video_id = frames["video_id"][0].as_py() if len(frames) else ""
    # One AU at a time, because a column is as long as the video, which can have thousands of faces.
    for au, prob in zip(facs.AUS, PROB, strict=True):
        positive = np.asarray(frames[au].fill_null(False).to_numpy(zero_copy_only=False), bool)
        probability = np.asarray(frames[prob].to_numpy(zero_copy_only=False))
        active = positive
        if config.hysteresis:
            active = positive | (probability >= thresholds[au] - config.hysteresis)
        for on in filter(len, (of_face[active[of_face]] for of_face in tracks)):
            for run in np.split(on, np.flatnonzero(np.diff(times[on]) > gap_s) + 1):
                first, last = run[0], run[-1]
                if positive[run].any() and times[last] - times[first] >= config.min_duration_s:
                    peak = run[np.argmax(probability[run])]
                    rows.append({
                        "video_id": video_id, "face_id": int(ids[first]), "au": au,
                        "onset_s": media_times[first], "apex_s": media_times[peak], "offset_s": media_times[last],
                        "peak": probability[peak], "mean": probability[run].mean(),
                        "onset_frame": numbers[first], "apex_frame": numbers[peak], "offset_frame": numbers[last],
                    })  # fmt: skip
    rows.sort(key=itemgetter("face_id"))  # stable: the order of AUs and onsets stays
    return pa.Table.from_pylist(rows, schema=EVENTS)
