"""Every value of the papers and of their authors' published code, stated here and not read from the recipes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from aupipe.models.build import build
from aupipe.models.configs import MultimodalConfig
from aupipe.models.inputs import InputSpec
from aupipe.training import optim, recipe
from aupipe.training.learner import Learner

pytestmark = pytest.mark.unit

IMAGENET = {"input.mean": [0.485, 0.456, 0.406], "input.std": [0.229, 0.224, 0.225]}
FACES = {"input.size_px": 112, "input.mean": [0.5] * 3, "input.std": [0.5] * 3}


def stage(name: str, **values: Any) -> dict[str, Any]:
    return {f"stages.{name}.{key.replace('__', '.')}": value for key, value in values.items()}


def group(name: str, number: int, parameters: list[str], decay: float, **schedule: Any) -> dict[str, Any]:
    place = f"stages.{name}.optimizer.groups.{number}"
    at = {f"{place}.parameters": parameters, f"{place}.weight_decay": decay}
    return at | {f"{place}.schedule.{key}": value for key, value in schedule.items()}


FOCAL = {"tasks__au__loss__kind": "focal", "tasks__au__loss__alpha": 0.75, "tasks__au__loss__gamma": 2}
EXPR_FOCAL = {"tasks__expr__loss__kind": "focal", "tasks__expr__loss__alpha": 0.25, "tasks__expr__loss__gamma": 2}
CLIP_JITTER = {
    "augment__flip": True, "augment__gain": 0.5, "augment__contrast": 0.25, "augment__saturation": 0.25,
}  # fmt: skip
SGD = {"optimizer__kind": "sgd", "optimizer__momentum": 0.9}
WINDOWS = {f"tasks__{task}__data__{key}": value for task in ("au", "expr") for key, value in
           (("clip_frames", 30), ("clip_stride", 10), ("held_out", 0), ("leak", "drop_val"))}  # fmt: skip
HEARD = {
    "tasks__au__loss__kind": "positive_weighted_bce", "tasks__au__loss__smoothing": 0.05,
    "tasks__au__loss__weights": [1, 2, 1, 1, 1, 1, 1, 3, 3, 3, 1, 2], "batch": 64, **EXPR_FOCAL, **WINDOWS, **SGD,
}  # fmt: skip

PAPERS: dict[str, dict[str, Any]] = {
    # Tu et al. 2023; the lab's code for ABAW3 where the paper is silent.
    "prompt_tuning": {
        "model.name": "video_transformer", "model.backbone": "regnety_004", "model.token_grid": [2, 2],
        "model.width": 440, "model.heads": 10, "model.mlp_width": 1760, "model.dropout": 0.1,
        "model.spatial_layers": 4, "model.temporal_layers": 4, "model.clip_frames": 256, "model.init_std": 0.01,
        "model.head": "with_cls", "model.prompts": None, "input.size_px": 112, **IMAGENET,
        **stage("base", init="weights/regnety_004_imagenet.safetensors", epochs=20, batch=16, **FOCAL, **CLIP_JITTER,
                **SGD, tasks__au__data__clip_frames=256, tasks__au__data__held_out=0, tasks__au__data__every_n=1,
                tasks__au__data__leak="off",
                tasks__au__data__clip_stride=None),
        **group("base", 0, ["head"], 5e-5, kind="restarts", lr=0.9, period_epochs=4, lowest=0.1, drop_epoch=16,
                factor=0.1),
        **stage("prompts", init="stage:base", epochs=20, batch=16, **FOCAL, **CLIP_JITTER, **SGD,
                model__prompts__length=10, model__prompts__dropout=0.1, tasks__au__data__clip_frames=256,
                tasks__au__data__subset=0.2, tasks__au__data__subset_choice="rare", tasks__au__data__held_out=0,
                tasks__au__data__leak="off"),
        **group("prompts", 0, ["head.spatial.layers.prompts", "head.temporal.layers.prompts"], 1e-4, kind="cosine",
                lr=0.5, warmup_epochs=2),
    },
    # Tu et al. 2023, table 2; Jia et al. 2022 for the prompts.
    "prompt_tuning_vit": {
        "model.name": "image_transformer", "model.backbone": "vit_base_patch16_224_miil", "model.outputs": ["au"],
        "model.prompts.length": 10, "model.prompts.dropout": 0.1,
        "input.size_px": 224, "input.mean": [0] * 3, "input.std": [1] * 3,
        **stage("train", init="weights/vit_base_patch16_224_miil_in21k.safetensors", **FOCAL, **SGD,
                tasks__au__data__held_out=0, tasks__au__data__leak="off"),
        **group("train", 0, ["encoder.backbone.network.blocks.prompts", "encoder.au"], 1e-4, kind="cosine", lr=0.5,
                warmup_epochs=2),
    },
    # Tallec et al. 2022: eq. 10; everything else is the authors' code.
    "multilabel_transformer": {
        "model.name": "multilabel_transformer", "model.backbone": "inception_v3", "model.width": 128,
        "model.heads": 8, "model.mlp_width": 512, "model.dropout": 0.1, "model.decoder_layers": 2,
        "model.decoder_style": "paper", "input.size_px": 299, "input.mean": [0.5] * 3, "input.std": [0.5] * 3,
        "smoothing_radii": [2, 5, 7, 10, 12],  # windows of 5, 11, 15, 21 and 25 frames
        **stage("train", init="weights/inception_v3_imagenet.safetensors", epochs=10, batch=64,
                tasks__au__loss__kind="bce_dice", tasks__au__loss__frequency_weighted=False, tasks__au__loss__dice=0,
                tasks__au__data__every_n=5, tasks__au__data__held_out=0, tasks__au__data__leak="off",
                augment__flip=True, augment__brightness=0.1,
                augment__channel_drop=0.3, augment__rotation_turns=0.1, augment__zoom=0.1, augment__mixup_alpha=0.4,
                augment__label_smoothing=0.1, optimizer__kind="adamw"),
        **group("train", 0, ["encoder.backbone"], 1, kind="exponential", lr=5e-5, factor=0.99),
        **group("train", 1, ["encoder.image"], 1, kind="warmup", tokens=64, width=128, warmup_epochs=2.5),
        **group("train", 2, ["encoder.decoder"], 1, kind="warmup", tokens=12, width=128, warmup_epochs=2.5),
    },
    # Wang et al. 2022: stages, losses and folds; sizes and rates are aupipe's.
    "expression_transfer": {
        "smoothing_radii": [0],
        "model.name": "expression_transfer", "model.backbone": "resnet50", "model.hidden": [512, 256],
        "model.dropout": 0.5, "input.size_px": 224, **IMAGENET,
        **stage("expressions", init="weights/resnet50_imagenet.safetensors", cross_validate=5, epochs=20, batch=128,
                model__outputs=["expr"], tasks__expr__loss__kind="cross_entropy", tasks__expr__data__held_out=0,
                augment__flip=True, **SGD),
        **group("expressions", 0, [""], 1e-4, kind="cosine", lr=0.01, warmup_epochs=0),
        **stage("aus", init="stage:expressions", model__outputs=["au"], tasks__au__loss__kind="bce",
                tasks__au__data__held_out=0, tasks__au__data__leak="off", **SGD),
        **group("aus", 0, ["encoder.backbone"], 1e-4, lr=1e-4),
        **group("aus", 1, ["encoder.au"], 1e-4, lr=1e-3),
    },
    # Jin et al. 2021 and their code; InsightFace's Glint360K settings for the identities.
    "multimodal": {
        "model.name": "multimodal", "model.backbone": "iresnet100", "model.dropout": 0.6,
        "model.outputs": ["au", "expr"], "model.expressions": 7, "model.audio.tdnn": "tdnn", "model.audio.width": 512,
        "model.sequence.frames": 30, "model.sequence.heads": 8, "model.sequence.head_width": 64,
        "model.sequence.mlp_width": 2048, "model.sequence.hidden": 512, "model.sequence.dropout": 0.1,
        "inference.overlap": 0, **FACES,
        **stage("identities", epochs=20, batch=1024, model__dropout=0, model__outputs=[],
                tasks__identity__loss__kind="cosface", tasks__identity__loss__scale=64,
                tasks__identity__loss__margin=0.4, tasks__identity__loss__sample_rate=0.1,
                tasks__identity__data__held_out=0, augment__flip=True, optimizer__clip_norm=5, **SGD),
        **group("identities", 0, [""], 1e-4, kind="polynomial", lr=0.1, power=2),
        **stage("visual", init="weights/glint360k_cosface_r100.pth", epochs=15, batch=64, alternate="epoch",
                tasks__au__loss__kind="positive_weighted_bce", tasks__au__loss__mean_over="all",
                tasks__au__loss__weights=[1, 2, 1, 1, 1, 1, 1, 6, 6, 5, 1, 5], tasks__au__data__held_out=0,
                tasks__expr__data__held_out=0, tasks__au__data__leak="drop_val", tasks__expr__data__leak="drop_val",
                **EXPR_FOCAL, augment__flip=True, augment__smallest_crop=0.6,
                augment__gain=0.3, augment__contrast=0.3, augment__saturation=0.3, augment__hue_turns=0.3, **SGD),
        **group("visual", 0, [""], 5e-4, kind="milestones", lr=1e-3, epochs=[8, 10, 12], factor=0.1),
        "stages.visual.optimizer.groups.0.decay_norms": False,
        **stage("audio", init="stage:visual", **HEARD),
        **group("audio", 0, ["head"], 5e-5, lr=0.01),
        **stage("sequence", init="stage:audio", **HEARD),
        **group("sequence", 0, ["head"], 5e-5, lr=0.01),
    },
    # Yu et al. 2023; SituTech's code for dropout, momentum, decay and milestones.
    "region_relation": {
        "model.name": "region_relation", "model.backbone": "iresnet100", "model.dropout_fc": 0.6, "model.branches": 4,
        "model.reduction": 16, "model.neighbors": 4, "model.count_self": True, "model.fusion": "attention",
        "model.lrp": True, "model.arl": True, **FACES,
        **stage("train", init="weights/glint360k_cosface_r100.pth", epochs=15, batch=256,
                tasks__au__loss__kind="bce_circle", tasks__au__loss__bce=1, tasks__au__loss__circle=1,
                tasks__au__data__every_n=10, tasks__au__data__rare_n=5, tasks__au__data__held_out=0,
                tasks__au__data__leak="off",
                augment__flip=True, augment__mixup_alpha=0, augment__label_smoothing=0, **SGD),
        **group("train", 0, [""], 5e-4, kind="milestones", lr=1e-3, epochs=[4, 6, 8], factor=0.1),
    },
}  # fmt: skip


PROTOCOLS = (Path(recipe.__file__).parents[1] / "recipes/PROTOCOLS.md").read_text()


def value(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


@pytest.mark.parametrize("name", PAPERS)
def test_the_recipe_has_the_values_of_its_paper(name: str) -> None:
    read = recipe.read(name, quick=False).model_dump(mode="json")
    found = {path: value(read, path) for path in PAPERS[name]}
    assert found == PAPERS[name]


def claims() -> list[tuple[str, str, str]]:
    """Return (recipe, setting, value) of every claim of PROTOCOLS.md."""
    found = []
    for section in PROTOCOLS.split("\n## `")[1:]:
        name = section.partition("`")[0]
        for code in re.findall(r"`([^`]+)`", section.partition("\n")[2]):
            own, _, rest = code.rpartition(":") if re.match(r"\w+:", code) else ("", "", code)
            key, equals, text = rest.partition("=")
            if equals and "." in key.replace("smoothing_radii", ".") and " " not in key:
                found.append((own or name, key, text))
    return found


@pytest.mark.parametrize("name", PAPERS)
def test_every_claim_of_a_paper_is_a_line_of_its_recipe(name: str) -> None:
    read = recipe.read(name, quick=False)
    stated = {key: yaml.safe_load(text) for recipe_name, key, text in claims() if recipe_name == name}
    assert len(stated) > (4 if name == "prompt_tuning_vit" else 15)
    expected = {key: "off" if each is False and key.endswith("leak") else each for key, each in stated.items()}
    assert {key: read.value_of(key) for key in expected} == expected


def test_every_kind_of_claim_is_stated() -> None:
    kinds = ("architecture", "loss", "optimizer", "schedule", "augmentation", "sampling", "folds", "post-processing")
    for section in PROTOCOLS.split("\n## ")[1:]:
        stated = re.findall(r"^\* ([a-z-]+):", section, re.MULTILINE)
        assert set(kinds) | {"metric"} <= set(stated)
    assert "* ensembling: five models vote" in PROTOCOLS


def test_every_recipe_of_a_paper_is_in_the_table() -> None:
    assert set(recipe.known()) - {"starter"} == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_papers_train_on_all_videos_and_quick_recipes_hold_some_out(name: str) -> None:
    for quick, share in ((False, 0), (True, 0.1)):
        read = recipe.read(name, quick=quick)
        shares = {task.data.held_out for stage in read.stages.values() for task in stage.tasks.named.values()}
        assert shares == {share}


def test_the_authors_loss_goes_with_the_authors_decoder() -> None:
    authors = recipe.read("multilabel_transformer", quick=False, overrides=["ablation=authors"])
    task = authors.stages["train"].tasks.au
    assert (task.loss.frequency_weighted, task.loss.dice, authors.model.decoder_style) == (True, 0.5, "authors")
    assert recipe.read("multilabel_transformer", quick=False, overrides=["ablation=paper"]) == recipe.read(
        "multilabel_transformer", quick=False
    )


def test_other_prompts_train_on_a_uniform_subset() -> None:
    uniform = recipe.read("prompt_tuning", quick=False, overrides=["ablation=uniform"])
    data = uniform.stages["prompts"].tasks.au.data
    assert (data.subset, data.subset_choice) == (0.2, "uniform")


@pytest.mark.parametrize("name", ["prompt_tuning", "multilabel_transformer", "multimodal", "region_relation"])
def test_the_network_has_the_papers_values_by_default(name: str) -> None:
    default = type(recipe.read(name, quick=False).model)().model_dump(mode="json")
    expected = {path.removeprefix("model."): each for path, each in PAPERS[name].items() if path.startswith("model.")}
    assert {path: value(default, path) for path in expected} == expected


def test_the_projection_is_retrained_only_by_the_authors_code() -> None:
    """The visual network is frozen in the last stage, except for its projection in the published code."""
    projection = {"bn2.weight", "bn2.bias", "fc.weight", "fc.bias", "features.bias"}
    for ablation, trained in (("paper", set()), ("retrain_projection", projection)):
        read = recipe.read("multimodal", quick=True, overrides=[f"ablation={ablation}"])
        if ablation == "paper":
            assert read == recipe.read("multimodal", quick=True)
        stage = recipe.read("multimodal", quick=False, overrides=[f"ablation={ablation}"]).stages["sequence"]
        with torch.device("meta"):
            system = build(MultimodalConfig(backbone="iresnet_quick"), InputSpec(size_px=64))
        optim.build(Learner(system, {}), stage.optimizer)
        own = system.encoder.backbone.network.named_parameters()
        assert {name for name, parameter in own if parameter.requires_grad} == trained
        assert (stage.encode_once is None) == bool(trained)


def test_the_authors_audio_is_stretched_and_factorized() -> None:
    audio = recipe.read("multimodal", quick=False, overrides=["ablation=authors_audio"]).model.audio
    assert (audio.tdnn, audio.align) == ("ftdnn", "interp")


def test_a_model_is_scored_with_the_leak_filter_of_its_aus() -> None:
    filters = {name: recipe.read(name, quick=False).leak for name in PAPERS}
    assert filters == dict.fromkeys(PAPERS, "off") | {"multimodal": "drop_val"}
