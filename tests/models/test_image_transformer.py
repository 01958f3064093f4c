import math
from typing import Any

import pytest
import timm
import torch

from aupipe.errors import ConfigError
from aupipe.models.build import build
from aupipe.models.configs import ImageTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import SequenceBatch, System
from aupipe.training import pretrained

pytestmark = pytest.mark.unit


def system(**settings: Any) -> System:
    torch.manual_seed(0)
    config = ImageTransformerConfig.model_validate({"backbone": "test_vit"} | settings)
    return build(config, InputSpec(size_px=64)).eval()


def test_paper_size() -> None:
    with torch.device("meta"):
        model = build(ImageTransformerConfig(prompts={}), InputSpec(size_px=224))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sizes.pop("encoder.backbone.network.blocks.prompts") == 92_160
    assert sum(size for name, size in sizes.items() if "backbone" in name) == 85_771_008
    assert sizes["encoder.au.weight"] == 12 * 768


def test_outputs_are_concatenated_in_the_configured_order() -> None:
    frames = torch.randn(3, 1, 3, 64, 64)
    model = system(outputs=("expr", "au"), expressions=7)
    logits = model.encoder(frames[:, 0])
    out = model(SequenceBatch.untimed(frames))
    assert model.encoder.embed_dim == 19
    assert torch.equal(out["expr"][:, 0], logits[:, :7])
    assert torch.equal(out["au"][:, 0], logits[:, 7:])


def test_weights_of_timms_network_fit_with_and_without_prompts(tmp_path: Any) -> None:
    torch.manual_seed(5)
    published = timm.create_model("test_vit", num_classes=10, img_size=64).eval()
    torch.save(published.state_dict(), tmp_path / "vit.pth")
    frames = torch.randn(2, 3, 64, 64)
    plain, prompted = system(), system(prompts={"length": 4})
    for model in (plain, prompted):
        given = pretrained.load_pretrained(model, str(tmp_path / "vit.pth"), setting="init")
        assert "encoder.backbone.network.pos_embed" in given
        assert not any(name.endswith("prompts") for name in given)
    expected = published.forward_head(published.forward_features(frames), pre_logits=True)
    for model, same in ((plain, True), (prompted, False)):
        pooled = model.encoder.backbone.pooled(model.encoder.backbone(frames))
        assert torch.allclose(pooled, expected, atol=1e-5) == same


def test_a_hybrid_reads_the_map_of_a_cnn() -> None:
    model = system(cnn="regnety_002", prompts={"length": 4}).encoder
    frames = torch.randn(2, 3, 64, 64)
    features = model.backbone(frames)
    tokens = model.vit(features)
    assert features.shape == (2, 368, 2, 2)
    assert tokens.shape == (2, 1 + 4, 64)
    assert torch.equal(model(frames), model.au(model.vit.pooled(tokens)))
    assert model.vit.network.blocks.prompts.abs().max() <= math.sqrt(6 / (368 + 64))
    moved = model.vit(features + 1)
    assert not torch.allclose(tokens[:, 0], moved[:, 0])


@pytest.mark.parametrize("name", ["resnet18", "no_such_network"])
def test_other_networks_than_vision_transformers_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="Vision Transformer"):
        system(backbone=name)
