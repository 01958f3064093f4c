"""The end of a search: failed trials are neither selected nor compared, and do not stop it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aupipe.errors import AupipeError, ConfigError, DatasetError, EnvironmentFailure
from aupipe.facestore import write
from aupipe.facestore.read import FaceStore
from aupipe.facestore.schema import StoreHeader
from aupipe.pipelines import train, tune
from aupipe.pipelines.tune_trial import TuneJob
from aupipe.storage import Storage
from aupipe.training import recipe
from aupipe.tuning import search, trials
from aupipe.tuning.trials import Trial

pytestmark = pytest.mark.unit

LR = "stages.train.optimizer.groups.0.schedule.lr"


@pytest.fixture
def job(tmp_path: Path) -> TuneJob:
    return TuneJob(recipe=recipe.read("multilabel_transformer", quick=True), store="store", out=str(tmp_path))


def record(job: TuneJob, number: int, settings: search.Settings, status: trials.Status, *scores: float) -> str:
    reason = "the loss is nan" if status == "failed" else ""
    trial = Trial(
        settings=settings, status=status, reason=reason, began_s=number, ended_s=number + 1, scores=scores
    )  # fmt: skip
    Storage(job.out).write(f"{trial.folder}/{trials.RECORD}", trial.model_dump_json().encode())
    return trial.name


def completing(monkeypatch: pytest.MonkeyPatch, errors: dict[str, AupipeError]) -> list[str]:
    """Replace training by errors of trials, and return the list of trials that are completed."""
    calls = []

    def complete(run: train.TrainJob) -> None:
        calls.append(run.out.rpartition("/")[2])
        if calls[-1] in errors:
            raise errors[calls[-1]]

    monkeypatch.setattr(train, "train", complete)
    return calls


def test_a_trial_that_failed_after_some_epochs_is_not_selected(job: TuneJob, monkeypatch: pytest.MonkeyPatch) -> None:
    record(job, 0, {}, "finished", 0.3, 0.35)
    failed = record(job, 1, {LR: 0.009}, "failed", 0.33, 0.41)
    good = record(job, 2, {LR: 0.001}, "stopped", 0.36)
    calls = completing(monkeypatch, {failed: AupipeError("the loss is nan")})
    assert list(tune._completed(job, {})) == calls == [good, "default"]
    table = {row["trial"]: row for row in pq.read_table(Path(job.out) / tune.TABLE).to_pylist()}
    assert (table[failed]["status"], table[failed]["score"], table[failed]["epochs"]) == ("failed", None, 2)


def test_without_the_default_the_best_trial_is_not_compared(job: TuneJob, monkeypatch: pytest.MonkeyPatch) -> None:
    record(job, 0, {}, "failed", 0.3)
    good = record(job, 1, {LR: 0.001}, "finished", 0.2)
    calls = completing(monkeypatch, {"default": AupipeError("the loss is nan")})
    assert list(tune._completed(job, {})) == calls == [good]


def test_a_stopped_trial_that_fails_when_it_is_completed_is_replaced(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(job, 0, {}, "finished", 0.3)
    best = record(job, 1, {LR: 0.009}, "stopped", 0.4)
    completing(monkeypatch, {best: AupipeError("epoch 3: the loss is nan")})
    assert list(tune._completed(job, {})) == ["default"]
    (failed,) = (trial for trial in trials.read(Storage(job.out)) if trial.status == "failed")
    assert (failed.name, failed.reason) == (best, "epoch 3: the loss is nan")


@pytest.mark.parametrize("error", [ConfigError("another run is writing"), EnvironmentFailure("the disk is full")])
def test_errors_of_the_surroundings_fail_no_trial(
    error: AupipeError, job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(job, 0, {}, "stopped", 0.3)
    completing(monkeypatch, {"default": error})
    with pytest.raises(type(error)):
        tune._completed(job, {})
    assert [trial.status for trial in trials.read(Storage(job.out))] == ["stopped"]


def test_a_search_without_a_trained_trial_ends_with_the_first_reason(job: TuneJob) -> None:
    record(job, 0, {}, "failed", 0.3)
    with pytest.raises(AupipeError, match="no trial could be trained; the first one: the loss is nan"):
        tune._completed(job, {})


def test_a_search_is_refused_whose_best_trial_could_not_be_scored(
    make_store: Callable[..., str], tmp_path: Path
) -> None:
    labeled, faces = make_store(), make_store(train=1, validation=0, prefix="faces")
    unlabeled = make_store(train=0, validation=3, frames=8, unknown=1, prefix="other")
    shutil.copytree(Path(labeled) / "split=train", Path(unlabeled) / "split=train")
    storage, card = Storage(unlabeled), FaceStore.open(labeled).card
    names = [name for name in storage.names() if name.startswith("split=")]
    write.finish(storage, StoreHeader(**card.model_dump(include=set(StoreHeader.model_fields))), names)
    settings = ["stages.train.tasks.au.data.window_groups=2", "stages.train.batch=8"]
    plan = recipe.read("multilabel_transformer", quick=True, overrides=settings)
    with pytest.raises(DatasetError, match="split 'validation' has no rows with a label for au"):
        tune.check(TuneJob(recipe=plan, store=unlabeled, out=str(tmp_path / "search")))
    elsewhere = plan.changed({"stages.train.tasks.au.data.store": labeled})
    found = tune.check(TuneJob(recipe=elsewhere, store=faces, out=str(tmp_path / "search")))
    assert found.scored.storage.root == labeled  # as train.py, which scores on the store of the task


def test_the_summary_names_failed_trials() -> None:
    unseen = {"videos": 3, "macro_f1": 0.4, "ci95": [0.3, 0.5], "floor": 0.2, "against_default": None}
    summary = {
        "trials": 2, "by_status": {"finished": 1, "failed": 1}, "failed": {"1234abcd": "the loss is nan"},
        "best": {"trial": "default", "settings": {}, "score": 0.4}, "unseen": unseen,
    }  # fmt: skip
    assert "1234abcd failed: the loss is nan" in tune.summary_text(summary)
