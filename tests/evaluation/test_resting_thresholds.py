"""Thresholds from resting faces: their rules, and that figures come from people on whom they were not set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aupipe import facs
from aupipe.errors import DatasetError
from aupipe.evaluation import metrics, resting_thresholds
from aupipe.evaluation.predictions import Predictions
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import MultilabelTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

SMILE = facs.AUS.index("AU12")


def people(count: int, shift: float = 0.1, seed: int = 0) -> Predictions:
    """Return two rows of each person: at rest, and with AU12; scores at rest are higher by `shift`."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((2 * count, 12), np.int8)
    labels[1::2, SMILE] = 1
    return Predictions(
        video_id=np.repeat(np.array([f"p{n:03d}" for n in range(count)], dtype=object), 2),
        person=np.full(2 * count, "", dtype=object),
        frame=np.tile([1, 2], count),
        labels=labels,
        probabilities=shift + 0.2 * rng.random(labels.shape) + 0.3 * rng.random(labels.shape) * labels,
    )


def rendered(at: float) -> Predictions:
    """Return 400 rows in which a score of `at` separates every AU from its absence."""
    labels = np.tile(np.arange(400)[:, None] % 2, 12).astype(np.int8)
    numbers, none = np.arange(400), np.full(400, "", dtype=object)
    return Predictions(none, none, numbers, labels, np.where(labels == 1, at + 0.004, at - 0.004))


def test_few_people_at_rest_reach_the_threshold_also_new_ones() -> None:
    rng = np.random.default_rng(1)
    for count in (18, 19, 25, 26, 51, 102):
        shares = []
        for _ in range(400):
            threshold = resting_thresholds.rarely_reached(rng.random(count))
            shares.append(1 - threshold)  # of uniform scores, those that reach it
        assert 0.4 * 0.08 < np.mean(shares) < 1.05 * 0.08, count


def test_recall_is_as_high_as_the_false_alarms_allow() -> None:
    resting = np.arange(20) / 100  # 0.00 … 0.19
    # 2 of 20 resting faces may be at the threshold, so it is above 0.17, and 3 faces with the AU can be found. All but
    # one of them are at 0.176 or above.
    found = resting_thresholds.best_recall(resting, np.array([0.05, 0.175, 0.176, 0.3]))
    assert found == pytest.approx(0.1755)
    assert (resting >= found).mean() <= 0.1
    # Nothing forces the threshold down where all faces with the AU are far above.
    assert resting_thresholds.best_recall(resting, np.array([0.5, 0.6])) == pytest.approx(0.55)
    # Equal scores everywhere: a threshold that all resting faces reach is not allowed.
    assert resting_thresholds.best_recall(np.full(20, 0.3), np.full(20, 0.3)) > 0.3


@pytest.mark.parametrize(("count", "enough"), [(19, False), (20, True)])
def test_twenty_pictures_of_an_au_set_its_threshold_by_recall(count: int, enough: bool) -> None:
    assert resting_thresholds.with_recall(people(count))[SMILE] == enough


def test_the_higher_of_rendered_and_resting_threshold_counts() -> None:
    real = people(51)
    by_recall = resting_thresholds.with_recall(real)
    assert by_recall.tolist() == [au == "AU12" for au in facs.AUS]
    low, high = (resting_thresholds.fit(real, rendered(at), by_recall) for at in (0.05, 0.4))
    rest = metrics.resting(real.labels)
    assert (real.probabilities[rest] >= low).mean(axis=0).max() <= 0.1
    assert high[0] == pytest.approx(0.4, abs=0.005)
    assert low[0] < 0.3
    assert high[SMILE] == low[SMILE]  # real smiles decide, rendered ones do not


def test_among_rendered_thresholds_that_are_nearly_as_good_the_highest_counts() -> None:
    labels = np.tile(np.repeat([0, 1], 200)[:, None], 12).astype(np.int8)
    numbers, none = np.arange(400), np.full(400, "", dtype=object)

    def highest(lost: int) -> np.ndarray:
        """Return the thresholds if F1 is 1 up to 0.2, and 0.8 loses so many of 200 positives."""
        scores = np.concatenate([np.full(200, 0.1), np.full(lost, 0.2), np.full(200 - lost, 0.8)])
        found = Predictions(none, none, numbers, labels, np.tile(scores[:, None], 12))
        return resting_thresholds.highest_nearly_best(found)

    assert highest(10) == pytest.approx(0.8, abs=2e-3)  # 2.6 % of F1
    assert highest(14) == pytest.approx(0.2, abs=2e-3)  # 3.6 %
    absent = Predictions(none, none, numbers, np.zeros_like(labels), np.full(labels.shape, 0.3))
    assert (resting_thresholds.highest_nearly_best(absent) == 0.5).all()


def logit(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities / (1 - probabilities))


def test_rendered_faces_are_moved_until_they_rest_as_real_ones_do() -> None:
    """Real faces at rest score lower than rendered ones, so a rendered threshold would miss all but the strongest."""
    real = people(51)
    before, after = rendered(0.4), resting_thresholds.on_real_scale(rendered(0.4), real)
    medians = [np.median(each.probabilities[metrics.resting(each.labels)], axis=0) for each in (real, after)]
    np.testing.assert_allclose(*medians, rtol=1e-6)
    # All logits of an AU move alike.
    moved = logit(after.probabilities) - logit(before.probabilities)
    assert np.ptp(moved, axis=0).max() < 1e-6
    assert moved.max() < -0.5
    assert np.array_equal(after.labels, before.labels)
    extreme = rendered(0.4)
    extreme.probabilities[:2] = [[0.0], [1.0]]
    assert np.isfinite(resting_thresholds.on_real_scale(extreme, real).probabilities).all()
    by_recall = resting_thresholds.with_recall(real)
    thresholds = resting_thresholds.fit(real, after, by_recall)
    assert (thresholds[~by_recall] < 0.35).all()
    called = resting_thresholds.cross_fitted(real, before)[metrics.resting(real.labels)]
    assert 0.03 < called.mean() < 0.12  # 0.0005 with thresholds of rendered faces that are not moved


def test_rendered_faces_without_any_at_rest_are_refused() -> None:
    moving = rendered(0.4).where(rendered(0.4).labels[:, 0] == 1)
    with pytest.raises(DatasetError, match="no rendered resting face"):
        resting_thresholds.on_real_scale(moving, people(51))


def test_figures_are_of_people_on_whom_the_thresholds_were_not_set() -> None:
    real = people(40)
    called = resting_thresholds.cross_fitted(real, rendered(0.05))
    assert called.shape == real.labels.shape
    rest = metrics.resting(real.labels)
    assert 0 < called[rest].mean() < 0.12
    # Two people have far higher scores at rest. Thresholds that were set with both of them would spare the lower one.
    real.probabilities[0], real.probabilities[2] = 0.99, 0.95
    found = resting_thresholds.cross_fitted(real, rendered(0.05))
    assert (np.delete(found, SMILE, axis=1)[[0, 2]] == 1).all()
    assert np.array_equal(called, resting_thresholds.cross_fitted(people(40), rendered(0.05)))


def test_the_command_writes_the_cards_and_names_its_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = checkpoint.Card(
        model=MultilabelTransformerConfig(backbone="test_resnet", width=16, heads=2, mlp_width=16),
        input=InputSpec(size_px=32), template=((0, 0),) * 5, training={"held_out_videos": ("v.mp4", "p050")},
    )  # fmt: skip
    saved = checkpoint.save(Storage(tmp_path / "best"), build(card.model, card.input), card)
    for name, rows in (("real", people(51)), ("rendered", rendered(0.05))):
        (tmp_path / name).write_bytes(rows.to_parquet(rows.probabilities >= 0.5))
    files = ["--real", str(tmp_path / "real"), "--rendered", str(tmp_path / "rendered")]
    assert resting_thresholds.main(files) == 0
    assert checkpoint.load_card(str(tmp_path / "best")) == saved
    assert resting_thresholds.main([*files, "--write", str(tmp_path / "best")]) == 0
    found = checkpoint.load_card(str(tmp_path / "best"))
    expected = resting_thresholds.fit(people(51), rendered(0.05), resting_thresholds.with_recall(people(51)))
    assert list(found.thresholds.values()) == pytest.approx(expected, abs=2e-3)  # the files are float32
    assert found.sha256 == saved.sha256
    at_rest = people(51).probabilities[::2]
    assert list(found.rest.values()) == pytest.approx(np.median(at_rest, axis=0), abs=2e-3)
    assert found.training.held_out_videos[:3] == ("v.mp4", "p050", "p000")  # also those of the training
    assert len(found.training.held_out_videos) == 52
    assert found.training.thresholds_from == "51 real resting faces and rendered intensities"
    assert capsys.readouterr().out.count("AU12") == 2


def test_unusable_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = people(17)
    (tmp_path / "few").write_bytes(few.to_parquet(few.probabilities >= 0.5))
    (tmp_path / "none").write_bytes(b"x")
    for name, reason in (("missing", "no such file"), ("none", "no predictions.parquet"), ("few", "at least 18")):
        file = str(tmp_path / name)
        assert resting_thresholds.main(["--real", file, "--rendered", file]) == 2
        assert reason in capsys.readouterr().err
