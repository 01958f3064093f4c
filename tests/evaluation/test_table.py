import pytest

from aupipe import facs
from aupipe.evaluation import table

pytestmark = pytest.mark.unit


def result(**more: object) -> dict:
    own = {"f1": 0.41, "ci95": (0.4, 0.5), "floor": 0.3, "threshold": None, "positives": 7, "calibration_error": 0.1,
           "auc": 0.87, "average_precision": 0.71, "false_alarms_at_rest": None}  # fmt: skip
    stage = {
        "macro_f1": 0.41, "per_au": dict.fromkeys(facs.AUS, 0.41), "acc_elem": 0.88, "acc_exact": 0.4,
        "metric_abaw2": {"with_acc_elem": 0.645, "with_acc_exact": 0.405}, "expression": None,
    }  # fmt: skip
    return {
        "per_au": dict.fromkeys(facs.AUS, own), "stages": {"as_given": stage}, "macro_f1": 0.41, "floor": 0.3,
        "ci95": {"macro_f1": (0.4, 0.5), "above_floor": (0.1, 0.2)}, "n_videos": 3, "n_frames": 9,
        "auc": 0.86, "average_precision": 0.7, "n_resting_frames": 0, "compared_with_published": "as_given",
    } | more  # fmt: skip


def test_the_table_contains_every_au_and_the_floor() -> None:
    text = table.text(result())
    assert [line.split()[0] for line in text.splitlines()[1:13]] == list(facs.AUS)
    assert "+0.110, 95 % +0.100 … +0.200 (paired bootstrap over 3 videos)" in text
    assert text.splitlines()[1].split()[-3:] == ["0.870", "0.710", "-"]  # no resting face, so no rate
    assert text.splitlines()[13].split()[-2:] == ["0.860", "0.700"]
    assert "as given: element accuracy 0.880, exact 0.400, ABAW2 metric 0.645; the stage to compare" in text
    assert "NOT" not in text
    assert "tuned" not in text


def test_optimistic_scores_are_marked() -> None:
    tuned = {"macro_f1": 0.47, "smoothing_radius": 5}
    text = table.text(result(seen_videos=2, validation_tuned=tuned))
    assert "NOT a held-out score: 2 of the 3 videos" in text
    assert "validation-tuned" in text
    assert "0.470" in text


def test_groups_name_the_aus_that_never_occur() -> None:
    group = {"macro_f1": 0.2, "ci95": (0.1, 0.3), "floor": 0.15, "n_videos": 2, "n_frames": 5}
    text = table.text(result(groups={"gender": {"w": group | {"aus_without_positives": ["AU15"]}}}))
    assert "macro F1 by gender:" in text
    assert "without positives, so scored 0: AU15" in text
