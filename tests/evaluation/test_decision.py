from dataclasses import replace

import numpy as np
import pytest

from aupipe.errors import ConfigError
from aupipe.evaluation.decision import STAGES, Member, decide
from aupipe.evaluation.predictions import Predictions

pytestmark = pytest.mark.unit


def member(probabilities: list[float], threshold: float = 0.5, radius: int = 0) -> Member:
    n = len(probabilities)
    rows = Predictions(
        np.full(n, "a", dtype=object), np.full(n, "", dtype=object), np.arange(1, n + 1), np.ones((n, 12), np.int8),
        np.repeat(np.array(probabilities)[:, None], 12, axis=1),
    )  # fmt: skip
    return Member(rows, np.full(12, threshold), radius)


def test_one_model_is_itself_either_way() -> None:
    single = member([0.1, 0.9, 0.5, 0.2], threshold=0.4, radius=1)
    smooth = single.raw.smoothed(1)
    for rule in ("mean", "vote"):
        stages = decide([single], rule)
        assert tuple(stages) == STAGES
        assert np.array_equal(stages["raw_at_0.5"].decided, single.raw.probabilities >= 0.5)
        assert np.array_equal(stages["with_thresholds"].decided, single.raw.probabilities >= 0.4)
        assert np.array_equal(stages["with_thresholds_and_smoothing"].decided, smooth.probabilities >= 0.4)


def test_mean_and_vote_differ_if_one_model_is_very_confident() -> None:
    members = [member([1.0, 0.6, 0.5]), member([0.4, 0.6, 0.5]), member([0.4, 0.1, 0.5])]
    mean, vote = (decide(members, rule)["with_thresholds"] for rule in ("mean", "vote"))
    assert mean.decided[:, 0].tolist() == [True, False, True]
    assert vote.decided[:, 0].tolist() == [False, True, True]  # half a probability is a yes
    assert mean.predictions.probabilities == pytest.approx(vote.predictions.probabilities)
    assert mean.predictions.probabilities[0, 0] == pytest.approx(0.6)
    assert vote.thresholds is None


def test_a_vote_needs_more_than_half_of_the_models() -> None:
    of_five = [member([1.0, 1.0]), member([1.0, 1.0]), member([0.0, 1.0]), member([0.0, 0.0]), member([0.0, 0.0])]
    assert decide(of_five, "vote")["with_thresholds"].decided[:, 0].tolist() == [False, True]


def test_expressions_are_averaged_over_models_with_the_same_classes_only() -> None:
    def with_expressions(*probabilities: float) -> Member:
        plain = member([0.5])
        return replace(plain, raw=replace(plain.raw, expressions=np.array([probabilities])))

    two = [with_expressions(0.2, 0.8), with_expressions(0.6, 0.4)]
    averaged = decide(two, "mean")["with_thresholds"].predictions
    assert averaged.expressions == pytest.approx(np.array([[0.4, 0.6]]))
    for other in (with_expressions(0.2, 0.3, 0.5), member([0.5])):
        assert decide([two[0], other], "mean")["with_thresholds"].predictions.expressions is None


def test_each_member_smooths_and_thresholds_itself() -> None:
    rough = [0.0, 1.0, 0.0]
    members = [member(rough, 0.3, radius=1), member(rough, 0.9), member(rough, 0.2, radius=1)]
    final = decide(members, "vote")["with_thresholds_and_smoothing"]
    assert final.decided[:, 0].tolist() == [True, True, True]  # 1/2, 1/3, 1/2 for the two that smooth
    mean = decide(members, "mean")["with_thresholds_and_smoothing"]
    assert mean.predictions.probabilities[:, 0] == pytest.approx([1 / 3, (2 / 3 + 1) / 3, 1 / 3])
    assert mean.thresholds == pytest.approx(np.full(12, 1.4 / 3))


def test_a_vote_that_can_tie_is_refused() -> None:
    for count in (2, 4):
        with pytest.raises(ConfigError, match="odd"):
            decide([member([0.5])] * count, "vote")
