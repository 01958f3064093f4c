import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.affwild2.layout import Annotation, Track
from aupipe.affwild2.splits import folds, held_out, official, video_positives

pytestmark = pytest.mark.unit


def track(name, **splits):
    annotations = {task: Annotation(f"{split}/{name}.txt", task, split) for task, split in splits.items()}
    return Track(name, annotations, (), None)


TRACKS = (
    track("a", au="train", expr="train"),
    track("b_left", au="train"),
    track("b_right", expr="validation"),
    track("c", au="validation", expr="validation"),
)


@pytest.mark.parametrize(
    ("leak", "expected"),
    [
        ("off", {("b_left", "au"): "train", ("b_right", "expr"): "validation"}),
        ("drop_train", {("b_right", "expr"): "validation"}),
        ("drop_val", {("b_left", "au"): "train"}),
        ("consistent", {("b_left", "au"): "validation", ("b_right", "expr"): "validation"}),
    ],
)
def test_the_leak_filter_goes_by_base_video(leak, expected):
    splits, leaked = official(TRACKS, leak)
    assert leaked == {"b"}
    assert {key: split for key, split in splits.items() if key[0].startswith("b")} == expected
    assert {key: split for key, split in splits.items() if not key[0].startswith("b")} == {
        ("a", "au"): "train", ("a", "expr"): "train", ("c", "au"): "validation", ("c", "expr"): "validation",
    }  # fmt: skip


counts = st.dictionaries(
    st.text("abcdef0123_", min_size=1, max_size=6),
    st.lists(st.integers(0, 500), min_size=3, max_size=3).map(np.array),
    max_size=40,
)


@given(counts, st.integers(2, 5))
def test_every_video_is_in_exactly_one_fold(positives, count):
    result = folds(positives, count)
    assert set(result) == set(positives)
    assert set(result.values()) <= set(range(count))
    assert result == folds(dict(reversed(positives.items())), count)
    assert held_out(positives) <= set(positives)


def test_folds_are_balanced_on_rare_aus():
    random = np.random.default_rng(0)
    rates = np.array([0.4, 0.03])
    positives = {f"v{i}": (random.dirichlet([0.3] * 2) * rates * 6000).astype(int) for i in range(200)}
    result = folds(positives)
    per_fold = np.array([sum(positives[v] for v in positives if result[v] == f) for f in range(4)])
    assert (per_fold.max(axis=0) / per_fold.min(axis=0) < 1.1).all()


def test_positives_are_counted_by_base_video():
    au = np.zeros((4, 12), int)
    au[0, 0] = au[2, 0] = au[2, 11] = 1
    au[3] = -1
    result = video_positives(["b", "a", "b", "b"], au)
    assert result["b"].tolist() == [2, *[0] * 10, 1, 3]
    assert result["a"].tolist() == [0] * 12 + [1]
