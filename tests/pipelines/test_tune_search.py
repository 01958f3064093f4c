"""What stops trials early and proposes new ones knows of the trials that were done before a restart."""

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


def said(asha: object, name: str, epoch: int, score: float) -> str:
    trial = SimpleNamespace(trial_id=name)
    asha.on_trial_add(None, trial)
    return asha.on_trial_result(None, trial, {"epoch": epoch, "score": score})


def test_a_new_trial_is_measured_by_those_that_are_done() -> None:
    before = [done(n, *(0.1 * n,) * 10) for n in range(1, 6)]
    asha = tune_search.scheduler(10, before)
    assert said(asha, "early", 1, 0.0) == TrialScheduler.CONTINUE  # everybody gets so far
    assert said(asha, "poor", 2, 0.2) == TrialScheduler.STOP
    assert said(asha, "good", 2, 0.6) == TrialScheduler.CONTINUE
    assert said(asha, "last", 9, 0.6) == TrialScheduler.CONTINUE  # a trial ends by itself
    assert said(tune_search.scheduler(10, []), "first", 2, 0.0) == TrialScheduler.CONTINUE


def test_optuna_goes_by_what_is_done_and_proposes_what_a_trial_can_take() -> None:
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
