import dataclasses
import json

import numpy as np
import pytest

from aupipe import facs
from aupipe.evaluation import metrics, report, table
from aupipe.evaluation.decision import Decision, Member, decide
from aupipe.evaluation.plot import picture
from aupipe.evaluation.predictions import Predictions

pytestmark = pytest.mark.unit


def predictions(quality: float, videos: int = 14) -> Predictions:
    rng = np.random.default_rng(0)
    n = videos * 30
    labels = np.repeat(rng.random((n // 10, 12)) < 0.3, 10, axis=0).astype(np.int8)
    labels[::9] = -1
    return Predictions(
        video_id=np.repeat(np.array([f"{v:02d}.mp4" for v in range(videos)], dtype=object), 30),
        person=np.full(n, "", dtype=object),
        frame=np.tile(np.arange(1, 31), videos),
        labels=labels,
        probabilities=np.clip(quality * (labels == 1) + (1 - quality) * rng.random(labels.shape), 0, 1),
    )


def decision(quality: float, at: float) -> Decision:
    rows = predictions(quality)
    return Decision(rows, rows.probabilities >= at)


def test_has_every_promised_key_and_is_json() -> None:
    result = report.report(decide([Member(predictions(0.5), np.full(12, 0.4), 2)], "mean"))
    text = table.text(json.loads(json.dumps(result)))
    promised = {"macro_f1", "per_au", "macro_f1_both_classes", "acc_elem", "acc_exact", "ci95", "floor", "n_frames",
                "n_videos", "floor_prior", "expression", "metric_abaw2"}  # fmt: skip
    assert promised <= result.keys()
    assert list(result["per_au"]) == list(facs.AUS)
    assert {"f1", "precision", "recall", "threshold", "positives", "calibration_error"} <= result["per_au"][
        "AU01"
    ].keys()
    assert result["n_videos"] == 14
    assert result["n_frames"] == 14 * 30 - len(range(0, 14 * 30, 9))
    assert result["stages"]["with_thresholds_and_smoothing"]["macro_f1"] == result["macro_f1"]
    assert f"{result['floor']:.3f}" in text
    assert all(au in text for au in facs.AUS)


def test_every_stage_has_the_metrics_of_the_papers_and_one_is_compared_with_them() -> None:
    rows = predictions(0.5)
    expressions = np.eye(8)[np.arange(len(rows.frame)) % 8]
    rows = dataclasses.replace(rows, expressions=expressions, expression_labels=np.arange(len(rows.frame)) % 4)
    stages = decide([Member(rows, np.full(12, 0.3), 4)], "mean")
    result = report.report(stages)
    assert result["compared_with_published"] == "raw_at_0.5"
    for name, stage in stages.items():
        own = report.scores(stage)
        for metric in ("macro_f1", "acc_elem", "acc_exact", "metric_abaw2", "expression"):
            assert result["stages"][name][metric] == own[metric], (name, metric)
    raw = result["stages"]["raw_at_0.5"]
    assert raw["acc_elem"] != result["acc_elem"]
    assert raw["metric_abaw2"]["with_acc_elem"] == pytest.approx((raw["macro_f1"] + raw["acc_elem"]) / 2)
    assert raw["expression"]["accuracy"] == pytest.approx((np.arange(len(rows.frame)) % 8 < 4).mean())
    text = table.text(result)
    (line,) = [line for line in text.splitlines() if "published" in line]
    assert line.startswith(f"raw 0.5: element accuracy {raw['acc_elem']:.3f}")
    assert "expression F1" in line
    given = report.report({"as_given": stages["with_thresholds"]})
    assert given["compared_with_published"] == "as_given"


def test_decisions_without_probabilities_have_no_areas_and_no_calibration() -> None:
    rows = predictions(0.5)
    decided = rows.probabilities >= 0.4
    with_some = report.scores(Decision(rows, decided))
    found = report.scores(Decision(rows, decided, has_probabilities=False))
    assert (found["auc"], found["average_precision"], found["macro_f1"]) == (None, None, with_some["macro_f1"])
    for au in facs.AUS:
        names = ("auc", "average_precision", "calibration_error")
        assert [found["per_au"][au][name] for name in names] == [None] * 3
        assert None not in [with_some["per_au"][au][name] for name in names]
        assert found["per_au"][au]["f1"] == with_some["per_au"][au]["f1"]


def test_aus_without_labels_have_no_scores_and_are_in_no_mean() -> None:
    rows = predictions(0.5)
    rows.labels[:, 2:] = -1  # as in a data set that labels AU01 and AU02 only
    rows.labels[:, 1] = np.minimum(rows.labels[:, 1], 0)  # labeled, and never present: F1 0
    stages = decide([Member(rows, np.full(12, 0.4), 2)], "mean")
    result = json.loads(json.dumps(report.report(stages), allow_nan=False))
    own = result["per_au"]
    assert own["AU01"]["f1"] > 0.5
    assert own["AU02"]["f1"] == 0.0
    for au in facs.AUS[2:]:
        values = [own[au][name] for name in ("f1", "ci95", "floor", "precision", "recall", "calibration_error", "auc",
                                              "false_alarms_at_rest")]  # fmt: skip
        assert values == [None] * 8
    assert result["macro_f1"] == pytest.approx(own["AU01"]["f1"] / 2)
    assert 0 < result["acc_exact"] < 1  # of both labeled AUs
    assert result["floor"] == pytest.approx(own["AU01"]["floor"] / 2)
    low, high = result["ci95"]["macro_f1"]
    assert low <= result["macro_f1"] <= high
    for stage in result["stages"].values():
        assert stage["macro_f1"] == pytest.approx(stage["per_au"]["AU01"] / 2)
        assert stage["per_au"]["AU26"] is None
    text = table.text(result)
    assert "no row has a label of AU04, AU06, AU07, AU10, AU12, AU15, AU23, AU24, AU25, AU26: not in the means" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("AU26")]
    assert row[1:6] == ["-"] * 5
    assert picture(result, "some", published=True).startswith(b"\x89PNG")
    # Of all images, none may have a label; the score is then 0, not an error.
    assert metrics.macro_f1(np.zeros((12, 4), int)) == 0.0


def test_areas_and_false_alarms_at_rest_are_of_the_decision() -> None:
    rows = predictions(0.3, videos=3)
    rows.labels[:30] = 0  # the first video is a resting face
    decided = rows.probabilities >= 0.5
    found = report.scores(Decision(rows, decided))
    rest = (rows.labels == 0).all(axis=1)
    assert found["n_resting_frames"] == rest.sum() >= 30
    assert found["per_au"]["AU12"]["false_alarms_at_rest"] == pytest.approx(decided[rest, 6].mean())
    assert 0 < found["per_au"]["AU12"]["false_alarms_at_rest"] < 1
    auc = metrics.auc(rows.labels, rows.probabilities)
    assert found["per_au"]["AU12"]["auc"] == auc[6]
    rows.labels[:, 3] = 0
    found = report.scores(Decision(rows, decided))
    assert found["per_au"]["AU06"]["auc"] is found["per_au"]["AU06"]["average_precision"] is None
    assert found["auc"] == pytest.approx(np.delete(auc, 3).mean())


def test_good_model_is_above_the_floor_and_chance_is_not() -> None:
    good = report.scores(decision(0.6, 0.5))
    low, high = good["ci95"]["above_floor"]
    assert 0.3 < low < good["macro_f1"] - good["floor"] < high
    chance = report.scores(decision(0.0, 0.5))
    assert chance["ci95"]["above_floor"][0] < 0.05


def test_against_another_the_interval_is_paired() -> None:
    good, other = decision(0.6, 0.5), decision(0.3, 0.5)
    found = report.against(good, other)
    assert found["macro_f1"] == report.scores(other)["macro_f1"]
    assert found["difference"] == pytest.approx(report.scores(good)["macro_f1"] - found["macro_f1"])
    low, high = found["ci95"]
    assert 0 < low < found["difference"] < high
    assert report.against(other, other)["ci95"] == (0, 0)  # independent draws would give a wide interval


def test_every_au_has_its_own_interval() -> None:
    rows = predictions(0.3)
    decided = rows.probabilities >= 0.5
    decided[:, 0], decided[:, 1] = rows.labels[:, 0] == 1, rows.labels[:, 1] != 1
    own = report.scores(Decision(rows, decided))["per_au"]
    assert (own["AU01"]["ci95"], own["AU02"]["ci95"]) == ((1, 1), (0, 0))
    for au in facs.AUS[2:]:
        low, high = own[au]["ci95"]
        assert low < own[au]["f1"] < high < 1


def test_rows_of_a_class_that_the_model_lacks_are_not_scored() -> None:
    rows = predictions(0.5)
    classes = np.arange(len(rows.frame)) % 8  # the last one is "Other"
    found = dataclasses.replace(rows, expressions=np.eye(7)[classes % 7], expression_labels=classes)
    scored = report.scores(Decision(found, rows.probabilities >= 0.5))["expression"]
    assert (scored["n_frames"], scored["accuracy"], scored["macro_f1"]) == ((classes < 7).sum(), 1, 1)


def test_all_ones_scores_the_floor_and_its_paired_interval_is_zero() -> None:
    ones = report.scores(decision(0.5, 0))
    assert ones["macro_f1"] == ones["floor"]
    assert ones["ci95"]["above_floor"] == (0, 0)
