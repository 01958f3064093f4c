"""The scheduler and the searcher use the scores of trials that were completed before a restart."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from aupipe.pipelines import tune_search
from aupipe.pipelines.tune_trial import TuneJob, settings_of
from aupipe.training import recipe
from aupipe.tuning import search
from aupipe.tuning.trials import Trial

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
