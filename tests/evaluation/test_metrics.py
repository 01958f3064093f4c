import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from aupipe.evaluation import metrics

pytestmark = pytest.mark.unit

# Positive rates of Aff-Wild2's train set, AU1 … AU26.
RATES = np.array([0.122, 0.052, 0.165, 0.272, 0.410, 0.355, 0.250, 0.028, 0.032, 0.029, 0.646, 0.078])
rows = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int8, (n, 12), elements=st.sampled_from([-1, 0, 1])), hnp.arrays(np.bool_, (n, 12))
    )
)


@given(rows)
def test_scores_equal_scikit_learn_per_au(data: tuple[np.ndarray, np.ndarray]) -> None:
    labels, predicted = data
    counts = metrics.confusion(labels, predicted)
    for au in range(12):
        known = labels[:, au] >= 0
        truth, guess = labels[known, au], predicted[known, au].astype(int)
        if not len(truth):
            assert counts[au].sum() == 0
            continue
        assert metrics.f1(counts)[au] == pytest.approx(f1_score(truth, guess, zero_division=0))
        assert metrics.precision(counts)[au] == pytest.approx(precision_score(truth, guess, zero_division=0))
        assert metrics.recall(counts)[au] == pytest.approx(recall_score(truth, guess, zero_division=0))
        both = f1_score(truth, guess, labels=[0, 1], average="macro", zero_division=0)
        one = counts[au : au + 1]
        assert metrics.macro_f1_both_classes(one) == pytest.approx(both)
    known = labels >= 0
    if known.any():
        assert metrics.acc_elem(counts) == pytest.approx(accuracy_score(labels[known], predicted[known]))


@given(rows, st.integers(1, 5), st.integers(0, 9))
def test_areas_equal_scikit_learn_also_with_ties(data: tuple[np.ndarray, np.ndarray], levels: int, seed: int) -> None:
    labels, _ = data
    probabilities = np.random.default_rng(seed).integers(0, levels + 1, labels.shape) / levels
    auc, precision = metrics.auc(labels, probabilities), metrics.average_precision(labels, probabilities)
    for au in range(12):
        known = labels[:, au] >= 0
        truth, values = labels[known, au], probabilities[known, au]
        if len(set(truth.tolist())) < 2:
            assert np.isnan(auc[au])
            assert np.isnan(precision[au])
        else:
            assert auc[au] == pytest.approx(roc_auc_score(truth, values))
            assert precision[au] == pytest.approx(average_precision_score(truth, values))


def test_a_resting_face_has_no_au_and_no_unknown_one_that_others_have_labels_of() -> None:
    labels = np.zeros((5, 12), np.int8)
    labels[:, 8] = -1  # not labeled in this set
    labels[1, 6], labels[2, 3], labels[4] = 1, -1, -1
    assert metrics.resting(labels).tolist() == [True, False, False, True, False]
    assert not metrics.resting(np.full((3, 12), -1, np.int8)).any()
    assert metrics.resting(np.zeros((0, 12), np.int8)).shape == (0,)


def test_false_alarms_are_shares_of_resting_faces() -> None:
    predicted = np.zeros((4, 12), bool)
    predicted[0, 8] = predicted[1, 8] = predicted[3, 0] = True
    assert metrics.false_alarms(predicted)[[0, 1, 8]].tolist() == [0.25, 0, 0.5]
    assert np.isnan(metrics.false_alarms(predicted[:0])).all()


@given(rows, st.integers(0, 40), st.randoms())
def test_streamed_equals_batch_in_any_order(data: tuple[np.ndarray, np.ndarray], cut: int, random: object) -> None:
    labels, predicted = data
    order = np.random.default_rng(cut).permutation(len(labels))
    shuffled = metrics.confusion(labels[order[:cut]], predicted[order[:cut]])
    shuffled = shuffled + metrics.confusion(labels[order[cut:]], predicted[order[cut:]])
    assert np.array_equal(shuffled, metrics.confusion(labels, predicted))
    groups = np.random.default_rng(cut).integers(0, 3, len(labels))
    by_group = metrics.confusion_by(groups, 3, labels, predicted)
    for group in range(3):
        assert np.array_equal(by_group[group], metrics.confusion(labels[groups == group], predicted[groups == group]))


def test_macro_f1_is_the_mean_of_f1s_not_the_f1_of_pooled_counts() -> None:
    counts = np.zeros((2, 4), dtype=np.int64)
    counts[0] = [10, 0, 0, 0]  # F1 1
    counts[1] = [0, 5, 85, 0]  # F1 0
    assert metrics.macro_f1(counts) == 0.5
    assert metrics.f1(counts.sum(axis=0)) == pytest.approx(20 / 110)


def test_floors_at_the_rates_of_affwild2() -> None:
    n = 1_000_000
    positives = np.round(RATES * n).astype(np.int64)
    counts = np.stack([np.zeros(12, np.int64), np.zeros(12, np.int64), positives, n - positives], axis=-1)
    assert metrics.macro_f1(metrics.all_ones(counts)) == pytest.approx(0.303, abs=5e-4)
    assert metrics.floor_prior(counts, RATES) == pytest.approx(0.203, abs=5e-4)
    assert metrics.floor_prior(counts, np.full(12, 0.5)) == pytest.approx(0.247, abs=1e-3)
    assert metrics.macro_f1(counts) == 0  # all zeros
    assert metrics.acc_elem(counts) == pytest.approx(0.797, abs=5e-4)


def test_all_ones_is_what_predicting_ones_scores() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (50, 12)).astype(np.int8)
    counts = metrics.confusion(labels, rng.random((50, 12)) < 0.5)
    assert np.array_equal(metrics.all_ones(counts), metrics.confusion(labels, np.ones((50, 12), dtype=bool)))


def test_exact_match_counts_fully_labeled_rows_only() -> None:
    labels = np.zeros((4, 12), dtype=np.int8)
    labels[1, 3], labels[2, 5] = 1, -1
    predicted = np.zeros((4, 12), dtype=bool)
    assert metrics.acc_exact(labels, predicted) == pytest.approx(2 / 3)  # row 2 is not counted, row 1 is wrong


def test_abaw2_metrics_reproduce_published_sums() -> None:
    assert metrics.abaw2_au(0.545, 0.879) == pytest.approx(0.712)
    assert metrics.abaw2_expression(0.402, 0.630) == pytest.approx(0.4772, abs=5e-5)


def test_expression_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(-1, 7, 300).astype(np.int8), rng.integers(0, 7, 300)
    known = labels >= 0
    table = metrics.class_confusion(labels, predicted, 7)
    f1, accuracy = metrics.class_scores(table)
    assert metrics.majority(table) == pytest.approx(np.bincount(labels[labels >= 0]).max() / (labels >= 0).sum())
    truth, guess = labels[known], predicted[known]
    expected = f1_score(truth, guess, labels=range(7), average="macro", zero_division=0)
    assert f1 == pytest.approx(expected)
    assert accuracy == pytest.approx(accuracy_score(truth, guess))


def test_classes_without_a_label_are_not_in_the_mean() -> None:
    labels = np.repeat(np.arange(7), 5)  # RAF-DB and ABAW2 have no "Other"
    assert metrics.class_scores(metrics.class_confusion(labels, labels, 8)) == (1, 1)
    wrong = np.where(np.arange(35) < 5, 7, labels)  # all of class 0 are predicted as the class without a label
    assert metrics.class_scores(metrics.class_confusion(labels, wrong, 8)) == pytest.approx((6 / 7, 6 / 7))
    assert metrics.class_scores(metrics.class_confusion(np.array([-1]), np.array([2]), 8)) == (0, 0)


def test_bootstrap_draws_whole_videos() -> None:
    rng = np.random.default_rng(2)
    per_video = rng.integers(0, 20, (15, 12, 4))
    drawn = metrics.resample(per_video, draws=400, seed=3)
    assert drawn.shape == (400, 12, 4)
    assert np.array_equal(drawn, metrics.resample(per_video, draws=400, seed=3))
    assert drawn.mean(axis=0) == pytest.approx(per_video.sum(axis=0), rel=0.15)
    same = np.repeat(per_video[:1], 15, axis=0)
    assert (metrics.resample(same, 10) == same.sum(axis=0)).all()  # equal videos: nothing varies
    low, high = metrics.interval95(metrics.macro_f1(drawn))
    assert low < metrics.macro_f1(per_video.sum(axis=0)) < high


def test_calibration_error_is_the_gap_between_probability_and_frequency() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0, 1, (20_000, 12))
    labels = (rng.uniform(0, 1, probabilities.shape) < probabilities).astype(np.int8)
    assert (metrics.calibration_error(labels, probabilities) < 0.02).all()
    wrong = np.where(labels == 1, 0.1, 0.9)  # on the mean, right: errors of different bins do not cancel out
    assert metrics.calibration_error(labels, wrong) == pytest.approx(0.9)
    always = np.full_like(probabilities, 0.9)
    assert metrics.calibration_error(labels, always) == pytest.approx(0.9 - labels.mean(0))
    labels[::2] = -1
    assert metrics.calibration_error(labels, always) == pytest.approx(0.9 - labels[1::2].mean(0))
    assert (metrics.calibration_error(np.full_like(labels, -1), always) == 0).all()


def test_reliability_compares_probabilities_with_shares() -> None:
    labels = np.full((4, 12), -1, np.int8)
    labels[:, 0] = [1, 0, 1, -1]
    probabilities = np.full((4, 12), 0.5)
    probabilities[:, 0] = [0.21, 0.29, 1.0, 0.9]
    predicted, observed = metrics.reliability(labels, probabilities)
    assert predicted.shape == observed.shape == (10, 12)
    assert predicted[[2, 9], 0] == pytest.approx([0.25, 1.0])
    assert observed[[2, 9], 0] == pytest.approx([0.5, 1.0])
    assert np.isnan(np.delete(predicted, [2, 9], axis=0)[:, 0]).all()
    assert np.isnan(observed[:, 1:]).all()
