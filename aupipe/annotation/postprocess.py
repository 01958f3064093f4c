"""Features to tables, per video: `predict_video` links faces and predicts, `apply_decision` applies the thresholds.

`apply_decision` reads only columns of the frames table, so other thresholds need neither video nor embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aupipe import facs
from aupipe.annotation.rest import intensity, rest_of
from aupipe.annotation.schema import (
    BOX,
    INTENSITY,
    MEMBERS,
    POSE,
    PROB,
    RAW,
    expression_columns,
    frames_schema,
    list_column,
)
from aupipe.annotation.tracks import gap_times_s, link_faces, rows_of_faces
from aupipe.evaluation.decision import EnsembleRule, apply_rule
from aupipe.evaluation.smoothing import smooth_track
from aupipe.faces.track import TrackingConfig

# Predicts one track with K models. It takes the rows (S,) and times (S,) of the track, and yields (columns,
# probabilities (S, …) of these columns) until all K·12 + C are predicted, so that a long track is never in memory as a
# whole.
TrackPredictor = Callable[[np.ndarray, np.ndarray], Iterable[tuple[slice, np.ndarray]]]


_KEPT = (
    "frame", "time_s", "status", "detector_score", *BOX, "landmarks", "frame_width", "frame_height", *POSE, "sharpness",
)  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """The rule that turns the probabilities of K models into booleans.

    Attributes:
        thresholds: of every AU, for each model.
        radii: frames of smoothing on each side, for each model.
        rest: of every AU, the median probability of people at rest, mean of the models.
    """

    rule: EnsembleRule
    thresholds: tuple[dict[str, float], ...]
    radii: tuple[int, ...]
    rest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(facs.AUS, 0.0))

    @property
    def mean_thresholds(self) -> dict[str, float]:
        """The mean of the models' thresholds, by AU."""
        return {au: sum(each[au] for each in self.thresholds) / len(self.thresholds) for au in facs.AUS}


def predict_video(
    video_id: str,
    features: pa.Table,
    predict_track: TrackPredictor,
    models: int,
    classes: int,
    tracking: TrackingConfig,
) -> pa.Table:
    """Return the frames table of a video with face ids, `AUxx_raw` and expressions.

    The columns that `apply_decision` fills are null.

    Args:
        features: the FEATURES rows of the whole video, ordered by frame, without embeddings.
        models: K.
        classes: C expressions.
    """
    ids = link_faces(features, tracking)
    ok = pc.equal(features["status"], "ok").to_numpy()
    order = np.lexsort((ids, features["frame"].to_numpy()))
    positions = np.argsort(order)  # of each row of `features` in the frames table
    aus, count = len(facs.AUS), len(features)
    probabilities = np.full((count, models * aus + classes), np.nan, np.float32)
    times = gap_times_s(features)
    for track in rows_of_faces(ids):
        rows = track[ok[track]]
        if len(rows):
            for part, values in predict_track(rows, times[rows]):
                probabilities[positions[rows], part] = values
    if (np.diff(order) < 0).any():  # The rows are mostly in order already, and a copy is large.
        features, ids = features.take(order), ids[order]
    columns = {
        "video_id": pa.repeat(pa.scalar(video_id, pa.string()), count),
        "face_id": pa.array(ids, pa.int32(), mask=ids < 0),
        **{name: features[name] for name in _KEPT},
        **{
            name: _nullable(probabilities[:, au : models * aus : aus].mean(axis=1, dtype=float))
            for au, name in enumerate(RAW)
        },
        **dict.fromkeys((*PROB, *INTENSITY), pa.nulls(count, pa.float32())),
        **dict.fromkeys(facs.AUS, pa.nulls(count, pa.bool_())),
        **_expressions(probabilities[:, models * aus :]),
    }
    if models > 1:
        has_prediction = np.isfinite(probabilities[:, : models * aus].mean(axis=1))
        columns[MEMBERS] = list_column(probabilities[has_prediction, : models * aus], has_prediction)
    schema = frames_schema(models, classes)
    return pa.table(columns).select(schema.names).cast(schema)


def apply_decision(frames: pa.Table, decision: Decision) -> pa.Table:
    """The frames table of one video with `AUxx_prob`, `AUxx_intensity` and `AUxx`.

    `_prob` is the mean of the models' probabilities, each smoothed along its track with the model's radius. AUxx: by
    mean if it reaches the mean of the models' thresholds, by vote if more than half of the models reach their own.
    `_intensity` is `_prob` above the face's own rest, see `rest.py`. Thresholds act on `_prob`, because on real videos
    that agrees better with a second model (aupipe/weights/starter/README.md).
    """
    ids = frames["face_id"].fill_null(-1).to_numpy()
    index, times = frames["frame"].to_numpy(), gap_times_s(frames)
    known = frames[RAW[0]].is_valid().to_numpy()
    tracks = [rows[known[rows]] for rows in rows_of_faces(ids)]
    thresholds = np.array([[each[au] for au in facs.AUS] for each in decision.thresholds])
    # One AU at a time: smoothing takes several copies, and a video can be long.
    for au, name in enumerate(facs.AUS):
        members = _members(frames, len(decision.radii), au)
        smoothed = np.full(members.shape[::-1], np.nan)
        for rows in filter(len, tracks):
            for member, radius in enumerate(decision.radii):
                values = members[rows, member, None].astype(np.float64)
                smoothed[member, rows] = smooth_track(index[rows], times[rows], values, radius)[:, 0]
        mean, positive = apply_rule(smoothed, thresholds[:, au], decision.rule)
        prob = mean.astype(np.float32)
        frames = _replace(frames, PROB[au], _nullable(prob))
        above_rest = np.full(len(mean), np.nan)
        for rows in filter(len, tracks):
            rest = rest_of(times[rows], mean[rows], decision.rest[name], float(thresholds[:, au].mean()))
            above_rest[rows] = intensity(mean[rows], rest)
        frames = _replace(frames, INTENSITY[au], _nullable(above_rest))
        frames = _replace(frames, name, pa.array(positive, mask=np.isnan(prob)))
    return frames


def _members(frames: pa.Table, models: int, au: int) -> np.ndarray:
    """Return the raw probabilities (N, K) float32 of an AU by each model, NaN where there are none."""
    if MEMBERS not in frames.column_names:
        return frames[RAW[au]].to_numpy(zero_copy_only=False)[:, None]
    column = frames[MEMBERS].combine_chunks()
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    members = np.full((len(frames), models), np.nan, np.float32)
    members[is_valid] = column.flatten().to_numpy().reshape(-1, models, len(facs.AUS))[:, :, au]
    return members


def _expressions(probability: np.ndarray) -> dict[str, pa.Array]:
    """Return the expression columns from probabilities (N, C): the most likely class (first of equals), and each."""
    classes = probability.shape[1]
    if classes == 0:
        return {}
    unknown = np.isnan(probability[:, 0])
    likeliest = np.array(facs.EXPRESSIONS)[np.where(unknown, 0, np.nan_to_num(probability).argmax(axis=1))]
    name, *names = expression_columns(classes)
    each = {name: _nullable(probability[:, number]) for number, name in enumerate(names)}
    return {name: pa.array(likeliest, pa.string(), mask=unknown), **each}


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=np.isnan(values))


def _replace(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)
