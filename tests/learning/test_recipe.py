from pathlib import Path

import pytest

from aupipe.errors import ConfigError
from aupipe.learning import recipe

pytestmark = pytest.mark.unit


def test_every_recipe_that_comes_along_can_be_read_in_both_sizes() -> None:
    assert "multilabel_transformer" in recipe.known()
    for name in recipe.known():
        paper, quick = (recipe.read(name, quick=quick) for quick in (False, True))
        assert paper.name == quick.name == name
        assert paper != quick


def test_multilabel_transformer_has_the_papers_settings() -> None:
    paper = recipe.read("multilabel_transformer", quick=False)
    stage = paper.stages["train"]
    assert (paper.model.backbone, paper.input.size_px) == ("inception_v3", 299)
    assert (stage.epochs, stage.batch, stage.data.every_n, stage.loss.dice) == (10, 64, 5, 0.5)
    assert [group.weight_decay for group in stage.optimiser.groups] == [1, 1, 1]
    assert stage.init not in ("random", "timm")


def test_overrides_reach_into_stages() -> None:
    changed = recipe.read("multilabel_transformer", quick=True, overrides=["stages.train.epochs=2", "seed=7"])
    assert (changed.stages["train"].epochs, changed.seed) == (2, 7)
    with pytest.raises(ConfigError, match="epochs"):
        recipe.read("multilabel_transformer", quick=True, overrides=["stages.train.epoch=2"])
    with pytest.raises(ConfigError, match="heads"):
        recipe.read("multilabel_transformer", quick=True, overrides=["model.heads=7"])


def test_unknown_names_and_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope.*multilabel_transformer"):
        recipe.read("nope", quick=False)
    file = tmp_path / "r.yaml"
    file.write_text("name: [")
    with pytest.raises(ConfigError, match="YAML"):
        recipe.read(str(file), quick=False)
    file.write_text("name: x")
    with pytest.raises(ConfigError, match="quick"):
        recipe.read(str(file), quick=True)
    with pytest.raises(ConfigError, match="stages"):
        recipe.read(str(file), quick=False)


def test_init_must_be_stated() -> None:
    with pytest.raises(ConfigError, match="init"):
        recipe.read("multilabel_transformer", quick=True, overrides=["stages.train.init=null"])
