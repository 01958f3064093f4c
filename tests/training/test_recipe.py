from importlib import resources
from pathlib import Path

import pytest
import yaml

from aupipe.errors import ConfigError
from aupipe.training import recipe
from aupipe.training.losses import BceConfig, FocalConfig
from aupipe.training.optim import Milestones

pytestmark = pytest.mark.unit


def test_every_recipe_can_be_read_in_both_sizes() -> None:
    assert "multilabel_transformer" in recipe.known()
    for name in recipe.known():
        paper, quick = (recipe.read(name, quick=quick) for quick in (False, True))
        assert paper.name == quick.name == name
        assert paper != quick


def test_multilabel_transformer_has_the_papers_settings() -> None:
    paper = recipe.read("multilabel_transformer", quick=False)
    stage = paper.stages["train"]
    assert (paper.model.backbone, paper.input.size_px) == ("inception_v3", 299)
    task = stage.tasks.au
    assert (stage.epochs, stage.batch, task.data.every_n, task.loss.dice) == (10, 64, 5, 0)
    assert [group.weight_decay for group in stage.optimizer.groups] == [1, 1, 1]
    assert stage.init not in ("random", "timm")


def test_overrides_reach_into_stages() -> None:
    changed = recipe.read("multilabel_transformer", quick=True, overrides=["stages.train.epochs=2", "seed=7"])
    assert (changed.stages["train"].epochs, changed.seed) == (2, 7)
    with pytest.raises(ConfigError, match="epochs"):
        recipe.read("multilabel_transformer", quick=True, overrides=["stages.train.epoch=2"])
    with pytest.raises(ConfigError, match="heads"):
        recipe.read("multilabel_transformer", quick=True, overrides=["model.heads=7"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.reducton=4", r"'model\.reducton'; the nearest known one is 'model\.reduction'"),
        ("model.reduction=0", r"'model\.reduction': .*greater"),
        ("stages.train.tasks.au.loss.circle=-1", r"'stages\.train\.tasks\.au\.loss\.circle'"),
        ("stages.train.tasks.au.loss.kind=circle", r"'stages\.train\.tasks\.au\.loss'"),
    ],
)
def test_settings_of_a_kind_are_named_as_they_are_typed(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe.read("region_relation", quick=True, overrides=[setting])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("expression_transfer", ["stages.expressions.tasks.expr.data.intensity=1"]),
        ("region_relation", ["stages.train.tasks.au.data.intensity=1"]),  # its loss wants labels
        ("starter", ["stages.train.tasks.au.data.shuffled_labels=true"]),
    ],
)
def test_intensities_are_refused_where_they_would_be_ignored(name: str, settings: list[str]) -> None:
    with pytest.raises(ConfigError, match="intensity"):
        recipe.read(name, quick=False, overrides=settings)


@pytest.mark.parametrize(
    ("name", "task", "setting"),
    [
        ("multilabel_transformer", "train.tasks.au", "balance_classes=1"),
        ("multilabel_transformer", "train.tasks.au", "ignore=[Other]"),
        ("multilabel_transformer", "train.tasks.au", "videos_are_people=true"),
        ("expression_transfer", "expressions.tasks.expr", "videos_are_people=true"),
        ("multimodal", "visual.tasks.expr", "subset=0.5"),
        ("multimodal", "identities.tasks.identity", "subset=0.5"),
        ("multimodal", "identities.tasks.identity", "ignore=[Other]"),
    ],
)
def test_settings_of_other_tasks_are_refused(name: str, task: str, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"\.data\.{setting.partition('=')[0]} .*is only for the task"):
        recipe.read(name, quick=False, overrides=[f"stages.{task}.data.{setting}"])


@pytest.mark.parametrize("setting", ["mixup_alpha=0.4", "label_smoothing=0.1"])
def test_soft_targets_are_refused_for_a_loss_of_hard_ones(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"stages\.train.*bce_circle needs labels 0 and 1"):
        recipe.read("region_relation", quick=True, overrides=[f"stages.train.augment.{setting}"])


def test_expressions_may_be_a_uniform_subset() -> None:
    data = "stages.visual.tasks.expr.data"
    chosen = recipe.read("multimodal", quick=False, overrides=[f"{data}.subset=0.5", f"{data}.subset_choice=uniform"])
    assert chosen.stages["visual"].tasks.expr.data.subset == 0.5


def test_folds_of_people_need_a_task_with_a_score() -> None:
    with pytest.raises(ConfigError, match="cross_validate scores AUs or expressions"):
        recipe.read(
            "region_relation", quick=True,
            overrides=["stages.expressions.tasks.expr=null", "stages.expressions.cross_validate=2",
                       "stages.expressions.tasks.identity.loss.kind=cosface"],
        )  # fmt: skip


def test_unknown_names_and_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope.*multilabel_transformer"):
        recipe.read("nope", quick=False)
    file = tmp_path / "r.yaml"
    file.write_text("name: [")
    with pytest.raises(ConfigError, match="YAML"):
        recipe.read(str(file), quick=False)
    for damaged, message in (
        (b"name: \xe9\n", "is not UTF-8"),
        (b"name: 2024-13-45\n", "YAML"),
        (b"stages: {train: {}}\nsearch: [1]\n", "setting 'search'"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(ConfigError, match=message):
            recipe.read(str(file), quick=False)
    file.write_text("name: x")
    with pytest.raises(ConfigError, match="quick"):
        recipe.read(str(file), quick=True)
    with pytest.raises(ConfigError, match="stages"):
        recipe.read(str(file), quick=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.expressions=5", "unknown setting 'model.expressions'; the nearest known one is 'model.heads'"),
        (
            "stages.tain.epochs=1",
            "setting 'stages.tain' has no init, tasks, optimizer, batch; the nearest .*'stages.train'",
        ),
        ("stages.train.init=stage:x", "^stages.train.init: stage:x names no earlier stage"),
        ("stages.train.epochs=true", "setting 'stages.train.epochs': should be a number"),
        ("stages.train.model.dropout=true", "setting 'stages.train.model.dropout'"),
        (
            "stages.train.model.dropuot=0",
            "unknown setting 'stages.train.model.dropuot'; the nearest .*train.model.dropout'",
        ),
        ("stages.train.model.width=61", "^setting 'stages.train.model': width 61 is no multiple of heads 4$"),
        ("input.mean=[0.5]", "^setting 'input.mean' has no 1, 2$"),
        (
            "stages.train.optimizer.groups.0.schedule.lr=abc",
            "^setting 'stages.train.optimizer.groups.0.schedule.lr': should be a valid number.* \\(got 'abc'\\)$",
        ),
    ],
)
def test_errors_name_their_setting(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        recipe.read("multilabel_transformer", quick=True, overrides=[setting])
    assert len(str(caught.value)) < 150


def test_a_loss_and_a_schedule_may_be_of_another_kind() -> None:
    loss, schedule = "stages.train.tasks.au.loss.kind", "stages.train.optimizer.groups.0.schedule.kind"
    read = recipe.read("multilabel_transformer", quick=True, overrides=[f"{loss}=bce", f"{schedule}=milestones"])
    stage = read.stages["train"]
    assert stage.tasks.au.loss == BceConfig()
    assert stage.optimizer.groups[0].schedule == Milestones(kind="milestones", lr=1e-3)  # lr is that of the cosine
    plain = recipe.read("multilabel_transformer", quick=True)
    assert plain.changed({loss: "bce", schedule: "milestones"}) == read
    focal = {"stages.train.tasks.au.loss.gamma": 1.0, loss: "focal"}  # in any order
    assert plain.changed(focal).stages["train"].tasks.au.loss == FocalConfig(gamma=1.0)


def test_init_must_be_stated() -> None:
    with pytest.raises(ConfigError, match="init"):
        recipe.read("multilabel_transformer", quick=True, overrides=["stages.train.init=null"])


def test_region_relation_has_the_papers_settings() -> None:
    paper = recipe.read("region_relation", quick=False)
    stage = paper.stages["train"]
    assert (paper.model.backbone, stage.epochs, stage.batch) == ("iresnet100", 15, 256)
    assert (stage.optimizer.kind, stage.optimizer.momentum) == ("sgd", 0.9)
    assert stage.optimizer.groups[0].schedule.epochs == (4, 6, 8)
    assert (stage.tasks.au.data.every_n, stage.tasks.au.data.rare_n) == (10, 5)
    assert not stage.augment.mixup_alpha
    assert paper.needed() == ["train"]  # the stage that stands in for Glint360K is not run unless it is asked for


@pytest.mark.parametrize(
    ("row", "parts", "circle", "starts_from_faces"),
    [
        ("baseline", (False, False, "none"), 0, False),
        ("circle", (False, False, "none"), 1, False),
        ("glint", (False, False, "none"), 1, True),
        ("arl", (True, False, "none"), 1, True),
        ("lrp", (True, True, "none"), 1, True),
        ("full", (True, True, "attention"), 1, True),
    ],
)
def test_rows_of_the_ablation(row: str, parts: tuple, circle: float, starts_from_faces: bool) -> None:
    for quick in (False, True):
        found = recipe.read("region_relation", quick=quick, overrides=[f"ablation={row}"])
        assert (found.model.arl, found.model.lrp, found.model.fusion) == parts
        assert found.stages["train"].tasks.au.loss.circle == circle
        assert (found.stages["train"].init != "random") == starts_from_faces


def test_unknown_ablation_names_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match=r"ablation=glnt.*baseline, circle, glint, arl, lrp, full, starter"):
        recipe.read("region_relation", quick=True, overrides=["ablation=glnt"])
    with pytest.raises(ConfigError, match="no ablations"):
        recipe.read("starter", quick=True, overrides=["ablation=full"])


@pytest.mark.parametrize(
    ("ablations", "message"),
    [
        ("", "ablation=full: recipe .* has no ablations"),
        ("[full]", "ablations is no mapping"),
        ("{full: text}", "ablations.full is 'text'"),
        ("{1: {}, half: {}}", "has 1, half"),
    ],
)
def test_invalid_ablations_are_named(ablations: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"name: x\nablations: {ablations}\n")
    with pytest.raises(ConfigError, match=message):
        recipe.read(str(tmp_path / "r.yaml"), quick=False, overrides=["ablation=full"])


def test_a_row_of_the_ablation_without_settings_is_the_recipe_itself(tmp_path: Path) -> None:
    text = (resources.files("aupipe") / "recipes" / "starter.yaml").read_text()
    (tmp_path / "r.yaml").write_text(f"{text}\nablations:\n  as_is:\n")
    assert recipe.read(str(tmp_path / "r.yaml"), quick=False, overrides=["ablation=as_is"]) == recipe.read(
        str(tmp_path / "r.yaml"), quick=False, overrides=[]
    )


def test_a_recipe_has_at_least_one_stage(tmp_path: Path) -> None:
    data = yaml.safe_load((resources.files("aupipe") / "recipes" / "starter.yaml").read_text()) | {"stages": {}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="stages"):
        recipe.read(str(tmp_path / "r.yaml"), quick=False, overrides=[])


def test_a_stage_may_change_the_model_and_start_from_an_earlier_one() -> None:
    found = recipe.read("expression_transfer", quick=True)
    assert found.needed() == ["expressions", "aus"]
    assert [found.model_of(stage).outputs for stage in found.stages] == [("expr",), ("au",)]
    alone = recipe.read("expression_transfer", quick=True, overrides=["stages.aus.init=random"])
    assert alone.needed() == ["aus"]
    with pytest.raises(ConfigError, match="names no earlier stage"):
        recipe.read("expression_transfer", quick=True, overrides=["stages.expressions.init=stage:aus"])
    with pytest.raises(ConfigError, match="mixup"):
        recipe.read("expression_transfer", quick=True, overrides=["stages.expressions.augment.mixup_alpha=0.4"])


def test_settings_of_a_fold_change_only_its_model() -> None:
    found = recipe.read("region_relation", quick=True, overrides=["fold.2.fusion=fixed"])
    assert found.model.fusion == found.for_fold("1").model.fusion == "attention"
    assert found.for_fold("2").model.fusion == "fixed"
    with pytest.raises(ConfigError, match="fusion"):
        recipe.read("region_relation", quick=True, overrides=["fold.2.fusion=none", "model.fusion=x"])


def test_removing_a_stage_removes_its_search() -> None:
    whole = recipe.read("prompt_tuning", quick=True)
    less = recipe.read("prompt_tuning", quick=True, overrides=["stages.prompts=null"])
    assert set(whole.search) - set(less.search) == {"prompts"}
    with pytest.raises(ConfigError, match="no such stage"):
        recipe.read("prompt_tuning", quick=True, overrides=["search.none={batch: {choice: [1, 2]}}"])


def test_a_key_that_a_file_has_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = (Path(recipe.__file__).parents[1] / "recipes" / "multilabel_transformer.yaml").read_text("utf-8")
    for again in ("model: {name: multilabel_transformer, width: 64}", "'seed': 1"):
        file.write_text(f"{text}\n{again}\n", "utf-8")
        with pytest.raises(
            ConfigError, match=r"mine\.yaml: not YAML \(the key '(model|seed)' is given twice .*line \d+"
        ):
            recipe.read(str(file), quick=False)


def test_merged_mappings_of_a_file_may_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = (Path(recipe.__file__).parents[1] / "recipes" / "multilabel_transformer.yaml").read_text("utf-8")
    rows = "ablations: {a: &a {model: &m {width: 64, heads: 4}}, b: {<<: *a, model: {<<: *m, heads: 2}}, c: *a}"
    file.write_text(f"{text.partition('ablations:')[0]}\n{rows}\n", "utf-8")
    found = recipe.read(str(file), quick=False, overrides=["ablation=b"]).model
    assert (found.width, found.heads) == (64, 2)
