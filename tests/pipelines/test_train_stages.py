"""Several stages, folds of people and folds of videos, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aupipe.commands import evaluate, train
from aupipe.errors import ConfigError
from aupipe.models import checkpoint
from aupipe.pipelines import train as training
from aupipe.pipelines import train_folds
from aupipe.pipelines.train_stage import TrainJob
from aupipe.training import recipe


def settings(*chosen: str) -> list[str]:
    return [part for setting in chosen for part in ("--set", setting)]


@pytest.mark.ray
@pytest.mark.slow
def test_people_left_out_then_expressions_then_aus(
    make_store: Callable[..., str], tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = make_store(train=6, validation=3, frames=16), tmp_path / "run"
    tiny = settings(
        "input.size_px=32", "model.hidden=[8]", "stages.expressions.cross_validate=2", "stages.expressions.epochs=2",
        "stages.expressions.patience=1", "stages.expressions.tasks.expr.data.every_n=1", "stages.expressions.batch=8",
        "stages.aus.epochs=1", "stages.aus.batch=8", "stages.aus.tasks.au.data.held_out=0.3",
    )  # fmt: skip
    arguments = ["--recipe", "expression_transfer", "--quick", "--data", store, "--out", str(run), "--workers", "1"]
    assert train.main([*arguments, *tiny]) == 0
    summary = json.loads((run / "summary.json").read_text())
    folds = summary["cross_validation"]["expressions"]
    assert len(folds["accuracies"]) == len(folds["majority"]) == 2
    assert folds["mean"] == pytest.approx(sum(folds["accuracies"]) / 2)
    assert list(summary["stages"]) == ["expressions", "aus"]
    assert "expr_accuracy" in summary["stages"]["expressions"]
    assert summary["macro_f1"] >= 0
    stages = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["expressions-people-0", "expressions-people-1", "expressions", "aus"]

    scored = [
        set(checkpoint.load_card(str(run / f"stages/expressions-people-{k}/best")).training.videos) for k in (0, 1)
    ]
    assert not scored[0] & scored[1]  # with two folds, the training people of one are the held-out people of the other
    first, card = checkpoint.load(str(run / "stages/expressions/best"))
    assert checkpoint.outputs(card) == {"expr": 8}
    assert card.training.stage == "expressions"
    assert not hasattr(first.encoder, "au")
    last, card = checkpoint.load(str(run / "best"))
    assert checkpoint.outputs(card) == {"au": 12}
    moved = zip(first.encoder.backbone.parameters(), last.encoder.backbone.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)  # the whole network is fine-tuned

    alone = ["--checkpoint", str(run / "stages/expressions/best"), "--data", store, "--out", str(tmp_path / "scores")]
    assert evaluate.main(alone) == 2
    assert "predicts expr, no AUs" in capsys.readouterr().err


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "stage", "keys"),
    [
        ("multilabel_transformer", "train", ("macro_f1", "floor")),
        ("expression_transfer", "expressions", ("accuracies", "majority")),
    ],
)
def test_folds_of_people_are_scored_by_the_tasks_of_their_stage(
    tmp_path: Path, name: str, stage: str, keys: tuple[str, str]
) -> None:
    plan = recipe.read(name, quick=True, overrides=[f"stages.{stage}.cross_validate=2"])
    score, base = ("expr_accuracy", "expr_majority") if stage == "expressions" else keys
    figures = [
        {"stage": f"{stage}-people-{fold}", "epoch": epoch, score: fold + epoch, base: 0.5}
        for fold in (0, 1) for epoch in (0, 1)
    ]  # fmt: skip
    found = training._folds(TrainJob(recipe=plan, store="store", out=str(tmp_path)), figures)
    assert found == {stage: {keys[0]: [1, 2], "mean": 1.5, keys[1]: [0.5, 0.5]}}


@pytest.mark.unit
def test_folds_without_labeled_people_are_refused_before_training(
    make_store: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(train=4, validation=2, frames=16)
    arguments = ["--recipe", "multilabel_transformer", "--quick", "--data", store, "--out", str(tmp_path / "run")]
    arguments += ["--dry-run", *settings("stages.train.batch=4")]
    assert train.main([*arguments, *settings("stages.train.cross_validate=6")]) == 0
    assert train.main([*arguments, *settings("stages.train.cross_validate=7")]) == 2
    assert "6 people are too few for 7 folds of people" in capsys.readouterr().err


@pytest.mark.unit
def test_the_folder_of_a_fold_is_named_by_its_changes(tmp_path: Path) -> None:
    plan = recipe.read("region_relation", quick=True, overrides=["fold.1.fusion=fixed", "fold.official.neighbors=3"])
    jobs = train_folds.jobs(TrainJob(recipe=plan, store="store", out=str(tmp_path)))
    assert {name: job.split for name, job in jobs.items()} == {
        "official,neighbors=3": "official", "fold-0": "fold:0", "fold-1,fusion=fixed": "fold:1", "fold-2": "fold:2",
        "fold-3": "fold:3",
    }  # fmt: skip
    assert jobs["fold-1,fusion=fixed"].recipe.model.fusion == "fixed"
    assert jobs["fold-0"].recipe.model.fusion == "attention"
    bad = recipe.read("region_relation", quick=True, overrides=["fold.1.fusion=none", "fold.7.fusion=fixed"])
    with pytest.raises(ConfigError, match=r"fold\.7"):
        train_folds.jobs(TrainJob(recipe=bad, store="store", out=str(tmp_path)))


@pytest.mark.unit
def test_table_has_one_row_per_fold_and_one_column_per_change() -> None:
    table = {
        name: {"macro_f1": f1} for name, f1 in (("fold-0", 0.5), ("official", 0.25), ("official,fusion=fixed", 0.75))
    }
    lines = train_folds.table_text(table).splitlines()
    assert lines[0].split() == ["fold", "fusion=fixed", "recipe"]
    assert [line.split() for line in lines[1:]] == [["official", "0.750", "0.250"], ["fold-0", "0.500"]]


@pytest.mark.ray
@pytest.mark.slow
def test_five_models_of_one_command_vote_on_other_people(
    make_store: Callable[..., str], tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture[str]
) -> None:
    store, other = make_store(train=8, validation=4, frames=16), make_store(train=2, validation=2, frames=16, seed=9)
    tiny = settings(
        "input.size_px=32", "stages.train.init=random", "stages.train.epochs=1", "stages.train.batch=8",
        "stages.train.tasks.au.data.every_n=1", "fold.2.fusion=fixed",
    )  # fmt: skip
    run = tmp_path / "run"
    arguments = ["--recipe", "region_relation", "--quick", "--data", store, "--out", str(run), "--workers", "1"]
    assert train.main([*arguments, *tiny, "--folds"]) == 0
    table = json.loads((run / "folds.json").read_text())
    assert set(table) == {"official", "fold-0", "fold-1", "fold-2,fusion=fixed", "fold-3"}
    five = [figures["checkpoint"] for figures in table.values()]
    for how in ("vote", "mean"):
        out = tmp_path / how
        scored = ["--checkpoint", *five, "--split", "all", "--out", str(out), "--set", f"ensemble={how}"]
        assert evaluate.main([*scored, "--data", other]) == 0
        assert len(json.loads((out / "scores.json").read_text())["models"]) == 5
        capsys.readouterr()
        assert evaluate.main([*scored, "--data", store]) == 2  # each video is a training video of some model
        assert "evaluate.allow_seen=true" in capsys.readouterr().err
