import pytest
import torch

from aupipe.errors import ConfigError
from aupipe.models.backbone import FACE, make

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", FACE)
def test_face_networks_state_their_output_sizes(name: str) -> None:
    with torch.device("meta"):
        backbone = make(name, 112)
        features = backbone(torch.zeros(2, 3, 112, 112))
        assert features.shape == (2, backbone.channels, *backbone.grid)
        assert backbone.pooled(features).shape == (2, backbone.pooled_width)
    assert backbone.name == name
    assert backbone.grid == (7, 7)
    assert backbone.cut == ()


def test_map_only_removes_the_layers_behind_the_map() -> None:
    whole, cut = make("iresnet_quick", 32), make("iresnet_quick", 32, map_only=True)
    state = whole.network.state_dict()
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(cut.cut)}
    cut.network.load_state_dict(kept, strict=True)
    assert len(kept) < len(state)
    frames = torch.randn(2, 3, 32, 32)
    assert torch.equal(whole.eval()(frames), cut.eval()(frames))


@pytest.mark.parametrize("name", ["iresnet_quick", "test_resnet"])
def test_dropout_acts_on_the_pooled_vector_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    backbone = make(name, 64, dropout=0.6)
    features = torch.randn(3, backbone.channels, *backbone.grid)
    assert not torch.equal(backbone.pooled(features), backbone.pooled(features))
    backbone.eval()
    assert torch.equal(backbone.pooled(features), backbone.pooled(features))


def test_timm_networks_are_averaged_over_their_map() -> None:
    backbone = make("test_resnet", 64).eval()
    features = backbone(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, backbone.channels, *backbone.grid)
    torch.testing.assert_close(backbone.pooled(features), features.flatten(2).mean(-1))
    assert backbone.pooled_width == backbone.channels


@pytest.mark.parametrize(
    ("name", "size_px", "channels", "grid", "parameters"),
    [
        ("resnet50", 224, 2048, (7, 7), 23_508_032),
        ("resnet50", 112, 2048, (4, 4), 23_508_032),
        ("inception_v3", 299, 2048, (8, 8), 21_785_568),
        ("regnety_004", 112, 440, (4, 4), 3_903_144),
    ],
)
def test_networks_of_the_papers(name: str, size_px: int, channels: int, grid: tuple, parameters: int) -> None:
    with torch.device("meta"):
        backbone = make(name, size_px)
    assert (backbone.channels, backbone.grid) == (channels, grid)
    assert sum(p.numel() for p in backbone.parameters()) == parameters


def test_unknown_names_and_flat_features_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="resnet9999"):
        make("resnet9999", 112)
    with pytest.raises(ConfigError, match=r"iresnet99.*iresnet100"):
        make("iresnet99", 112)
    with pytest.raises(ConfigError, match="test_vit"):
        make("test_vit", 160)
