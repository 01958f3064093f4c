from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from aupipe.errors import CheckpointError, ConfigError
from aupipe.models import checkpoint, default_models
from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig, MultilabelTransformerConfig, RegionRelationConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import System
from aupipe.storage import Storage
from aupipe.training import pretrained, recipe

pytestmark = pytest.mark.unit

MODEL = MultilabelTransformerConfig(backbone="test_resnet", width=16, heads=2, mlp_width=32)
INPUT = InputSpec(size_px=64)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_random_keeps_the_system_as_built() -> None:
    torch.manual_seed(3)
    one = build(MODEL, INPUT)
    torch.manual_seed(3)
    two = build(MODEL, INPUT)
    pretrained.load_pretrained(two, "random", setting="s")
    assert same(one, two)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_initializes_the_backbone_and_may_have_a_classifier(tmp_path: Path, suffix: str) -> None:
    whole = timm.create_model("test_resnet", pretrained=False)
    path = tmp_path / f"w{suffix}"
    save_file(whole.state_dict(), path) if suffix == ".safetensors" else torch.save(whole.state_dict(), path)
    pretrained.check(str(path), setting="s", system=build(MODEL, INPUT))
    system = build(MODEL, INPUT)
    pretrained.load_pretrained(system, str(path), setting="s")
    expected = {k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")}
    got = system.encoder.backbone.network.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[k], v) for k, v in expected.items())


@pytest.mark.parametrize("name", [name for name in recipe.known() if name != "starter"])
def test_the_starter_model_initializes_the_backbone(name: str) -> None:
    plan = recipe.read(name, quick=True, overrides=["ablation=starter"])
    first, *_ = plan.needed()
    system = build(plan.model_of(first), plan.input)
    loaded = pretrained.load_pretrained(system, plan.stages[first].init, setting="s")
    starter, card = checkpoint.load(default_models.SINGLE_NETWORK)
    assert same(system.encoder.get_submodule("backbone"), starter.encoder.get_submodule("backbone"))
    assert loaded == {name for name in system.state_dict() if name.startswith("encoder.backbone.")}
    # The network has learned from both images, and only the starter model reads the mirror image.
    assert plan.input == card.input.model_copy(update={"mirrored": False})


def test_file_of_another_network_is_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file({k: v for k, v in state.items() if k != "conv1.0.weight"}, tmp_path / "less.safetensors")
    save_file({**state, "layer9.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    for name, what in (("less", "conv1.0.weight"), ("more", "layer9.weight")):
        with pytest.raises(CheckpointError, match=what):
            pretrained.load_pretrained(build(MODEL, INPUT), str(tmp_path / f"{name}.safetensors"), setting="s")


def test_missing_file_names_setting_layout_and_way_out() -> None:
    with pytest.raises(ConfigError, match=r"stages\.train\.init.*test_resnet.*--set stages\.train\.init=timm"):
        pretrained.check("weights/none.safetensors", setting="stages.train.init", system=build(MODEL, INPUT))
    face = build(RegionRelationConfig(backbone="iresnet_quick", arl=False, lrp=False, fusion="none"), INPUT)
    for init in ("none.pth", "timm"):
        with pytest.raises(ConfigError, match=r"InsightFace's state dict of iresnet_quick.*--set s=FILE"):
            pretrained.check(init, setting="s", system=face)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        pretrained.check("nowhere", setting="s", system=build(MODEL, INPUT))


def test_a_run_initializes_the_whole_system(tmp_path: Path) -> None:
    trained = build(MODEL, INPUT)
    card = checkpoint.Card(model=MODEL, input=INPUT, template=((0, 0),) * 5)
    checkpoint.save(Storage(tmp_path / "best"), trained, card)
    for init in (tmp_path, tmp_path / "best"):
        pretrained.check(str(init), setting="s", system=build(MODEL, INPUT))
        system = build(MODEL, INPUT)
        pretrained.load_pretrained(system, str(init), setting="s")
        assert same(system, trained)
    with pytest.raises(CheckpointError, match="does not fit"):
        pretrained.load_pretrained(build(MODEL.model_copy(update={"width": 32}), INPUT), str(tmp_path), setting="s")
    weights = tmp_path / "best/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="copy the checkpoint again"):
        pretrained.check(str(tmp_path), setting="s", system=build(MODEL, INPUT))


def expressions(**settings: object) -> ExpressionTransferConfig:
    return ExpressionTransferConfig(backbone="test_resnet", hidden=(8, 8), **settings)


def test_backbone_of_the_first_stage_is_that_of_the_second_and_only_the_head_is_new(tmp_path: Path) -> None:
    config = expressions(outputs=("expr",))
    first = build(config, INPUT)
    checkpoint.save(Storage(tmp_path), first, checkpoint.Card(model=config, input=INPUT, template=((0, 0),) * 5))
    second = build(expressions(outputs=("au",)), INPUT)
    given = pretrained.load_pretrained(second, str(tmp_path), setting="s")
    assert same(first.encoder.backbone, second.encoder.backbone)
    assert {name.split(".")[1] for name in second.state_dict().keys() - given} == {"au"}

    for parameter in second.encoder.backbone.parameters():
        parameter.requires_grad_(False)
    pretrained.check_frozen(second, given, setting="s")  # frozen, but it came from somewhere
    with pytest.raises(ConfigError, match=r"s leaves \d+ frozen parameters random, e\.g\. encoder\.backbone"):
        pretrained.check_frozen(second, set(), setting="s")


def test_a_module_is_loaded_completely_or_not_at_all(tmp_path: Path) -> None:
    def system(backbone: str) -> tuple[RegionRelationConfig, System]:
        config = RegionRelationConfig(backbone=backbone, arl=False, lrp=False, fusion="none")
        return config, build(config, INPUT)

    config, small = system("iresnet18")
    checkpoint.save(Storage(tmp_path), small, checkpoint.Card(model=config, input=INPUT, template=((0, 0),) * 5))
    with pytest.raises(CheckpointError, match="has only a part of backbone"):
        pretrained.load_pretrained(system("iresnet34")[1], str(tmp_path), setting="s")
