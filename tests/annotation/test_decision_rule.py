"""Evaluation and annotation decide alike, also where a probability is within a rounding error of its threshold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from aupipe import facs
from aupipe.annotation import postprocess
from aupipe.annotation.schema import PROB, RAW, frames_schema, list_column
from aupipe.evaluation.decision import Decision, EnsembleRule, Member, decide
from aupipe.evaluation.predictions import Predictions

pytestmark = pytest.mark.unit

FRAMES = 400
AUS = len(facs.AUS)


def at_thresholds(models: int) -> tuple[np.ndarray, np.ndarray]:
    """Return raw float32 probabilities (K, N, 12) within one float32 step of their thresholds (K, 12), float64."""
    rng = np.random.default_rng(models)
    thresholds = rng.integers(1, 200, (models, AUS)) / 200
    raw = np.repeat(thresholds.astype(np.float32)[:, None], FRAMES, axis=1)
    step = rng.integers(-1, 2, raw.shape)
    return np.where(step == 0, raw, np.nextafter(raw, np.sign(step).astype(np.float32))), thresholds


def annotated(raw: np.ndarray, thresholds: np.ndarray, radii: tuple[int, ...], rule: EnsembleRule) -> pa.Table:
    """Return the frames table of one face whose raw columns hold `raw` (K, N, 12)."""
    models, count = len(raw), raw.shape[1]
    schema = frames_schema(models, 0)
    columns = {name: pa.nulls(count, schema.field(name).type) for name in schema.names}
    columns |= {"frame": pa.array(np.arange(count)), "time_s": pa.array(np.arange(count) * 0.04)}
    columns |= {
        "video_id": pa.repeat("v", count),
        "face_id": pa.array(np.zeros(count)),
        "status": pa.repeat("ok", count),
    }
    columns |= {name: pa.array(raw[:, :, au].mean(axis=0, dtype=float)) for au, name in enumerate(RAW)}
    if models > 1:
        flat = raw.transpose(1, 0, 2).reshape(count, -1)
        columns["votes_raw"] = list_column(flat, np.ones(count, dtype=bool))
    table = pa.table(columns).select(schema.names).cast(schema)
    each = tuple(dict(zip(facs.AUS, values, strict=True)) for values in thresholds.tolist())
    return postprocess.apply_decision(table, postprocess.Decision(rule, each, radii))


def evaluated(raw: np.ndarray, thresholds: np.ndarray, radii: tuple[int, ...], rule: EnsembleRule) -> Decision:
    count = raw.shape[1]
    members = [
        Member(
            Predictions(
                np.full(count, "v", dtype=object), np.full(count, "", dtype=object), np.arange(1, count + 1),
                np.ones((count, AUS), np.int8), values.astype(np.float64), time_s=np.arange(count) * 0.04,
            ),
            own, radius,
        )
        for values, own, radius in zip(raw, thresholds, radii, strict=True)
    ]  # fmt: skip
    return decide(members, rule)["with_thresholds_and_smoothing"]


@pytest.mark.parametrize("radii", [(0,), (3,), (0, 0, 0), (0, 2, 5), (0,) * 9])
@pytest.mark.parametrize("rule", ["mean", "vote"])
def test_evaluation_and_annotation_agree_exactly_at_a_threshold(rule: EnsembleRule, radii: tuple[int, ...]) -> None:
    raw, thresholds = at_thresholds(len(radii))
    table, decision = annotated(raw, thresholds, radii, rule), evaluated(raw, thresholds, radii, rule)
    for au, name in enumerate(facs.AUS):
        assert np.array_equal(table[PROB[au]].to_numpy(), decision.predictions.probabilities[:, au].astype(np.float32))
        assert np.array_equal(table[name].to_numpy(zero_copy_only=False), decision.decided[:, au])
    assert 0 < decision.decided.mean() < 1


def test_float64_would_decide_otherwise() -> None:
    raw, thresholds = at_thresholds(1)
    decided = evaluated(raw, thresholds, (0,), "mean").decided
    assert (decided != (raw[0].astype(np.float64) >= thresholds[0])).any()
