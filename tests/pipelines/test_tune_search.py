"""The scheduler and the searcher use the scores of trials that were completed before a restart."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from ray.tune.schedulers import TrialScheduler

from aupipe.errors import AupipeError
from aupipe.pipelines import tune_search
from aupipe.pipelines.train_stage import TrainJob
from aupipe.pipelines.tune_trial import MachineError, TuneJob, run_trial, settings_of
from aupipe.storage import Storage
from aupipe.training import recipe
from aupipe.tuning import search
from aupipe.tuning.trials import Trial, read

pytestmark = pytest.mark.unit

QUICK = recipe.read("multilabel_transformer", quick=True)


def done(number: int, *scores: float) -> Trial:
    return Trial(settings={"seed": number}, status="finished", began_s=number, scores=scores)


def decision(asha: object, name: str, epoch: int, score: float) -> str:
    trial = SimpleNamespace(trial_id=name)
    asha.on_trial_add(None, trial)
    return asha.on_trial_result(None, trial, {"epoch": epoch, "score": score})


def test_a_new_trial_is_compared_with_completed_ones() -> None:
    before = [done(n, *(0.1 * n,) * 10) for n in range(1, 6)]
    asha = tune_search.scheduler(10, before)
    assert decision(asha, "early", 1, 0.0) == TrialScheduler.CONTINUE  # below the first rung
    assert decision(asha, "poor", 2, 0.2) == TrialScheduler.STOP
    assert decision(asha, "good", 2, 0.6) == TrialScheduler.CONTINUE
    assert decision(asha, "last", 9, 0.6) == TrialScheduler.CONTINUE  # the last epoch is never stopped
    assert decision(tune_search.scheduler(10, []), "first", 2, 0.0) == TrialScheduler.CONTINUE


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stages.train.model.width": 60}, "width 60 is no multiple of heads 8"),
        ({"stages.train.batch": 1.37}, "stages.train.batch"),
        ({"stages.train.batch": 1000}, "fewer than one batch of 1000"),
    ],
)
def test_a_trial_with_invalid_settings_fails_at_once(
    settings: dict[str, object], reason: str, make_store: Callable[..., str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("aupipe.pipelines.train.run_stages", lambda run: pytest.fail("trained"))
    space = {"train": {key.removeprefix("stages.train."): {"choice": [8]} for key in settings}}
    plan = recipe.read("multilabel_transformer", quick=True, overrides=["model.heads=8", "model.width=64"])
    store = make_store(train=8, validation=3, frames=16)
    job = TuneJob(recipe=plan.changed({"search": space}), store=store, out=str(tmp_path))
    run_trial({"settings": settings}, job, {})
    (trial,) = read(Storage(tmp_path))
    assert (trial.status, trial.failures) == ("failed", 0)
    assert reason in trial.reason


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "running"),
        (ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "PutObject"), "running"),
        (AupipeError("the loss is nan"), "failed"),
        (AupipeError("training failed: CUDA out of memory"), "failed"),
    ],
)
def test_a_trial_that_meets_a_full_disk_is_tried_again(
    error: Exception, status: str, make_store: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: TrainJob) -> None:
        raise error

    monkeypatch.setattr("aupipe.pipelines.train.run_stages", fail)
    monkeypatch.setattr("aupipe.pipelines.tune_trial._Epochs", object)  # which needs a session of Ray Tune
    plan = recipe.read("multilabel_transformer", quick=True)
    job = TuneJob(recipe=plan, store=make_store(train=20, validation=3, frames=16), out=str(tmp_path))
    for _ in range(5):
        with pytest.raises(MachineError, match="; fix: ") if status == "running" else nullcontext():
            run_trial({"settings": {}}, job, {})
    (trial,) = read(Storage(tmp_path))
    assert (trial.status, trial.failures) == (status, 0)


def test_optuna_uses_completed_trials_and_proposes_valid_settings() -> None:
    plan = QUICK.changed({"search": {"train": {"model.dropout": {"uniform": [0, 0.9]}, "batch": {"choice": [16, 32]}}}})
    job = TuneJob(recipe=plan, store="store", out="out", searcher="optuna")
    _, *drawn = search.draws(plan, 21)
    dropout = "stages.train.model.dropout"
    before = [Trial(settings=one, status="finished", began_s=0, scores=(1 - abs(one[dropout] - 0.8),)) for one in drawn]

    def proposed(found: list[Trial]) -> float:
        searcher = tune_search.optuna(0, found)
        assert searcher.set_search_properties(None, None, tune_search.space_of(job))
        settings = [settings_of(job, searcher.suggest(str(number))) for number in range(20)]
        assert all(plan.changed(each) for each in settings)
        return sum(abs(each[dropout] - 0.8) for each in settings) / len(settings)

    assert proposed(before) < proposed([]) - 0.1
