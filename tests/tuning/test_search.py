from pathlib import Path

import pytest

from aupipe.errors import ConfigError
from aupipe.training import recipe
from aupipe.tuning import search

pytestmark = pytest.mark.unit

LR = "stages.train.optimizer.groups.0.schedule.lr"
QUICK = recipe.read("multilabel_transformer", quick=True)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", recipe.known())
def test_every_recipe_can_be_searched_and_what_is_found_trained(name: str, quick: bool, tmp_path: Path) -> None:
    plan = recipe.read(name, quick=quick)
    space = search.search_space(plan)
    assert {key.split(".")[1] for key in space} == {plan.needed()[-1]}
    _, drawn = search.draws(plan, 2)
    changed = plan.changed(drawn)
    assert {key: changed.value_of(key) for key in space} == drawn
    (tmp_path / "best.yaml").write_bytes(search.to_yaml(changed, "found"))
    assert recipe.read(str(tmp_path / "best.yaml"), quick=False) == changed


def test_draws_begin_with_the_unmodified_recipe_and_repeat_when_extended() -> None:
    few, many = search.draws(QUICK, 4), search.draws(QUICK, 9)
    assert few[0] == {}
    assert many[:4] == few
    assert len({search.name_of(settings) for settings in many}) == 9
    assert search.name_of({}) == search.DEFAULT
    assert search.draws(QUICK.changed({"seed": 1}), 2)[1] != few[1]


def test_a_small_space_is_drawn_to_its_end() -> None:
    space = {"train": {"model.dropout": {"choice": [0, 0.2]}, "batch": {"choice": [8, 16]}}}
    assert len(search.draws(QUICK.changed({"search": space}), 20)) == 5


def test_stages_before_the_searched_one_are_trained_once_for_all_trials() -> None:
    plan = recipe.read("prompt_tuning", quick=True)
    shared = search.shared(plan)
    assert shared is not None
    assert shared.needed() == list(shared.stages) == ["cnn", "base"]
    length = "stages.prompts.model.prompts.length"
    trial = search.of_trial(plan, {length: 2}, {"cnn": "run/cnn", "base": "run/base"})
    assert list(trial.stages) == ["prompts"]
    assert trial.stages["prompts"].init == "run/base"
    assert trial.model_of("prompts").prompts.length == 2
    assert search.shared(QUICK) is None
    assert search.of_trial(QUICK, {}, {}).stages == QUICK.stages


def test_losses_of_several_kinds_can_be_searched() -> None:
    space = {"train": {"tasks.au.loss.kind": {"choice": ["bce_dice", "bce", "focal"]}}}
    plan = QUICK.changed({"search": space})
    kinds = [plan.changed(each).stages["train"].tasks.au.loss.kind for each in search.draws(plan, 4)]
    assert sorted(kinds) == ["bce", "bce_dice", "bce_dice", "focal"]


def test_a_search_of_a_stage_that_is_not_run_is_left_out() -> None:
    plan = recipe.read("region_relation", quick=True, overrides=["search.expressions={batch: {choice: [16, 32]}}"])
    assert "stages.expressions.batch" in search.search_space(plan)
    assert search.shared(plan) is None
    paper = recipe.read("region_relation", quick=False, overrides=["search.expressions={batch: {choice: [16, 32]}}"])
    assert "stages.expressions.batch" not in search.search_space(paper)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.train=null"], "has no search space"),
        (["search.first={batch: {choice: [8]}}"], "search.first"),
        (["search.train={batches: {choice: [8]}}"], "stages.train.batches"),
        (["search.train={batch: {choice: [8, 0]}}"], "stages.train.batch"),
        (["search.train={optimizer.groups.1.weight_decay: {choice: [0]}}"], "optimizer.groups.1.weight_decay"),
        (["search.train={model.width: {choice: [30]}}"], "heads"),
        (["search.train={model.width: {uniform: [16, 64]}}"], r"fractions .*fix: model.width: {choice: \[16, 64\]}"),
        (["search.train={epochs: {log_uniform: [1, 8]}}"], "draws fractions"),
        (["search.train={augment.flip: {uniform: [0, 1]}}"], "draws fractions"),
    ],
)
def test_invalid_searches_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search.search_space(recipe.read("multilabel_transformer", quick=True, overrides=overrides))


def test_null_removes_a_key_from_a_search() -> None:
    fewer = recipe.read("multilabel_transformer", quick=True, overrides=[f"search.train={{{LR[13:]}: null}}"])
    assert search.search_space(QUICK).keys() - search.search_space(fewer).keys() == {LR}
