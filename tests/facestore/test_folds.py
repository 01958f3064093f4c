import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aupipe.facestore.columns import from_arrays
from aupipe.facestore.folds import folds, held_out, video_positives
from aupipe.facestore.schema import SCHEMA

pytestmark = pytest.mark.unit

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


def test_folds_are_balanced_on_rare_aus():
    random = np.random.default_rng(0)
    rates = np.array([0.4, 0.03])
    positives = {f"v{i}": (random.dirichlet([0.3] * 2) * rates * 6000).astype(int) for i in range(200)}
    result = folds(positives)
    per_fold = np.array([sum(positives[v] for v in positives if result[v] == f) for f in range(4)])
    assert (per_fold.max(axis=0) / per_fold.min(axis=0) < 1.1).all()


def test_positives_are_counted_by_base_video():
    au = np.zeros((4, 12), np.int8)
    au[0, 0] = au[2, 0] = au[2, 11] = 1
    au[3] = -1
    labels = from_arrays(au, SCHEMA.field("au").type, 4)
    result = video_positives(pa.table({"video_id": ["b", "a", "b", "b"], "au": labels}))
    assert result["b"].tolist() == [2, *[0] * 10, 1, 3]
    assert result["a"].tolist() == [0] * 12 + [1]


@given(counts, st.floats(0, 0.5))
def test_held_out_videos_are_never_all(positives, fraction):
    chosen = held_out(positives, fraction)
    assert chosen == held_out(dict(reversed(positives.items())), fraction)
    assert chosen <= set(positives)
    assert bool(chosen) == (fraction > 0 and len(positives) > 1)
    assert len(chosen) < max(len(positives), 1)


def test_held_out_videos_have_their_share_of_every_au():
    random = np.random.default_rng(1)
    positives = {f"v{i}": (random.dirichlet([0.3] * 3) * 3000).astype(int) for i in range(200)}
    total = sum(positives.values())
    assert sum(positives[v] for v in held_out(positives, 0.1)) / total == pytest.approx(0.1, abs=0.02)
    dominated = {"dominant": np.array([900, 10]), **{f"v{i}": np.array([10, 10]) for i in range(5)}}
    assert "dominant" not in held_out(dominated, 0.25)
