import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from aupipe.storage import Storage
from aupipe.training import recipe
from aupipe.tuning import search, trials

pytestmark = pytest.mark.unit

KEY = "stages.train.tasks.au.loss.dice"


def write_epochs(out: Storage, trial: trials.Trial, *scores: float, stage: str = "train") -> None:
    lines = [
        {"stage": stage, "epoch": n, "score": s, "train_s": 2.0, "validation_s": 1.0} for n, s in enumerate(scores)
    ]
    earlier = [{"stage": "first", "epoch": 0, "score": 9.0, "train_s": 5.0, "validation_s": 0.0}]
    out.write(f"{trial.folder}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in earlier + lines).encode())


def test_a_trial_is_begun_once_and_ends_once(tmp_path: Path) -> None:
    out = Storage(tmp_path)
    begun = trials.begin(out, {KEY: 0.3})
    assert trials.begin(out, {KEY: 0.3}) == begun
    assert (begun.status, begun.score) == ("running", float("-inf"))
    write_epochs(out, begun, 0.1, 0.4, 0.2)
    ended = trials.end(out, {KEY: 0.3}, "stopped")
    assert (ended.status, ended.scores, ended.score, ended.train_s) == ("stopped", (0.1, 0.4, 0.2), 0.4, 9.0)
    assert trials.end(out, {KEY: 0.3}, "failed", "late") == ended
    assert trials.read(out) == [ended]
    assert trials.read(Storage(tmp_path / "none")) == []


def test_the_best_trial_is_the_one_with_the_best_epoch(tmp_path: Path) -> None:
    out = Storage(tmp_path)
    for value, scores in ((0.1, (0.2, 0.5)), (0.2, (0.6, 0.1)), (0.3, (0.6,))):
        write_epochs(out, trials.begin(out, {KEY: value}), *scores)
        trials.end(out, {KEY: value}, "finished")
    trials.end(out, {KEY: 0.4}, "failed", "the loss is nan")
    found = trials.read(out)
    assert [trial.settings[KEY] for trial in found] == [0.1, 0.2, 0.3, 0.4]
    assert trials.best(found).settings == {KEY: 0.2}


def test_the_table_has_one_column_per_setting_with_the_recipes_value_for_the_default(tmp_path: Path) -> None:
    plan, out = recipe.read("multilabel_transformer", quick=True), Storage(tmp_path)
    _, drawn = search.draws(plan, 2)
    write_epochs(out, trials.begin(out, {}), 0.5)
    trials.end(out, {}, "finished")
    trials.end(out, drawn, "failed", "the loss is nan")
    table = pq.read_table(io.BytesIO(trials.to_parquet(plan, search.search_space(plan), trials.read(out)))).to_pylist()
    assert [row["trial"] for row in table] == ["default", search.name_of(drawn)]
    assert [row[KEY] for row in table] == [0.5, drawn[KEY]]
    assert table[0]["score"] == 0.5
    assert (table[1]["score"], table[1]["epochs"], table[1]["reason"]) == (None, 0, "the loss is nan")
    assert table[0]["ended"] >= table[0]["began"]


def test_failures_of_a_driver_are_counted_over_restarts(tmp_path: Path) -> None:
    out = Storage(tmp_path)
    assert [trials.count_failure(out, {KEY: 0.3}) for _ in range(3)] == [1, 2, 3]
    assert trials.begin(out, {KEY: 0.3}).status == "running"
