"""Runs and published figures in one table, marked by the data that they were measured on."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from aupipe import facs
from aupipe.commands.results import main
from aupipe.evaluation import results
from aupipe.evaluation.decision import Member, decide
from aupipe.evaluation.predictions import Predictions
from aupipe.evaluation.report import report

pytestmark = pytest.mark.unit


def scored(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    labels = (rng.random((60, 12)) < 0.4).astype(np.int8)
    classes = np.arange(60) % 7
    rows = Predictions(
        video_id=np.repeat(np.array(["a", "b", "c"], dtype=object), 20), person=np.full(60, "", dtype=object),
        frame=np.tile(np.arange(1, 21), 3), labels=labels, probabilities=0.3 * labels + 0.6 * rng.random((60, 12)),
        expressions=np.eye(7)[classes], expression_labels=classes // 2,
    )  # fmt: skip
    return report(decide([Member(rows, np.full(12, 0.4), 3)], "mean"))


def summary(seed: int, recipe: str, **more: object) -> dict:
    result = scored(seed)
    chosen = {key: result[key] for key in ("macro_f1", "ci95", "compared_with_published")}
    return chosen | {"by_step": result["stages"], "recipe": recipe, "aff_wild2": False, "split": "validation"} | more


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, str]:
    files = {
        "run/summary.json": summary(0, "multimodal"),
        "folds/folds.json": {
            "official": summary(1, "region_relation", aff_wild2=True),
            "fold-0": summary(2, "region_relation", aff_wild2=True, split="fold:0"),
        },
        "scores/scores.json": scored(3) | {"recipe": None, "aff_wild2": False, "split": "validation"},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    return {name.split("/")[0]: str(tmp_path / name.split("/")[0]) for name in files}


def test_runs_stand_beside_the_published_figures_of_their_recipe(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*runs.values(), "--out", str(out), "--dry-run"]) == 0
    assert not out.exists()
    assert main([*runs.values(), "--out", str(out)]) == 0
    assert "## `region_relation`" in capsys.readouterr().out
    rows = {row["system"]: row for row in csv.DictReader(io.StringIO((out / "results.csv").read_text()))}
    run = rows[runs["run"]]
    raw = scored(0)["stages"]["raw_at_0.5"]
    assert (run["data"], run["step"]) == ("not measured on Aff-Wild2", "raw_at_0.5")
    assert float(run["macro F1"]) == raw["macro_f1"]
    assert [float(run[au]) for au in facs.AUS] == list(raw["per_au"].values())
    assert float(run["EXPR metric"]) == raw["expression"]["metric_abaw2"]
    assert float(run["ABAW2 metric"]) == raw["metric_abaw2"]["with_acc_elem"]  # as the papers count
    assert run["ci95_low"] == ""  # the interval is that of thresholds and smoothing
    assert rows[f"{runs['folds']}/official"]["data"] == "Aff-Wild2 validation"
    assert rows[f"{runs['folds']}/fold-0"]["data"] == "Aff-Wild2 fold:0"
    assert rows["Jin et al., AUs"]["ABAW2 metric"] == "0.712"
    assert {row["recipe"] for row in rows.values()} == {"multimodal", "region_relation", "predictions"}
    assert all(row["data"] == "published" for name, row in rows.items() if "et al." in name)
    text = (out / "results.md").read_text()
    assert text.count("| Yu et al., fold") == 4
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert f"{raw['acc_elem']:.3f}" in next(line for line in lines if runs["run"] in line)
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")


def test_an_au_without_labels_has_no_figure(runs):
    file = Path(runs["run"], "summary.json")
    result = json.loads(file.read_text())
    result["by_step"]["raw_at_0.5"]["per_au"]["AU15"] = None
    file.write_text(json.dumps(result))
    tables = results.collect([runs["run"]])
    row, *_ = csv.DictReader(io.StringIO(tables.csv()))
    assert (row["AU15"], row["AU12"]) == ("", str(result["by_step"]["raw_at_0.5"]["per_au"]["AU12"]))
    assert "AU15" not in tables.markdown()


def test_published_figures_are_drawn_only_beside_runs_on_the_same_data(runs, monkeypatch):
    drawn: list[list[str]] = []
    original = results.Figure.savefig
    monkeypatch.setattr(
        results.Figure, "savefig",
        lambda figure, *args, **more: (
            drawn.append([label.get_text() for label in figure.axes[0].get_yticklabels()]),
            original(figure, *args, **more),
        ),
    )  # fmt: skip
    results.collect([runs["run"]]).picture()
    results.collect([runs["folds"]]).picture()
    assert drawn[0] == [f"{runs['run']} (not measured on Aff-Wild2)"]
    assert sum(name.endswith("(published)") for name in drawn[1]) == 11


def test_published_rows_are_those_of_the_papers():
    macro = {row.name: row.figures["macro F1"] for row in results.PUBLISHED_ROWS if "macro F1" in row.figures}
    folds = [macro[f"Yu et al., fold {number}"] for number in range(1, 5)]
    # The paper prints 51.97 for fold 2, whose entries average 51.89.
    assert folds == pytest.approx([0.5302, 0.5189, 0.4905, 0.4915], abs=6e-5)
    ablation = [value for name, value in macro.items() if "ablation" in name]
    assert ablation == [0.4682, 0.4778, 0.4906, 0.4956, 0.5019, 0.5106]


def test_folders_without_scores_exit_2(runs, tmp_path, capsys):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/summary.json").write_text("{}")
    (tmp_path / "search").mkdir()
    (tmp_path / "search/summary.json").write_text('{"trials": 3}')
    for folder, message in (
        (tmp_path / "none", "no run"),
        (tmp_path / "old", "of an earlier version"),
        (tmp_path / "search", "is a search"),
    ):
        assert main([runs["run"], str(folder), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scores.json", "summary.json", "folds.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"a": 1}', '{"compared_with_published": "raw_at_0.5"}'])
def test_a_damaged_file_exits_2_with_one_sentence(name, content, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text(content)
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error


def test_a_bar_in_the_name_of_a_folder_ends_no_cell(tmp_path: Path) -> None:
    folder = tmp_path / "a|b"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary(0, "multimodal")))
    lines = results.collect([str(folder)]).markdown().splitlines()
    (line,) = [line for line in lines if "a\\|b" in line]
    assert line.replace("\\|", "").count("|") == lines[2].count("|")
