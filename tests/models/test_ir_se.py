import pytest
import torch

from aupipe.models.ir_se import IRSE50, Block

pytestmark = pytest.mark.unit


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_and_published_keys() -> None:
    with torch.device("meta"):
        network = IRSE50(size_px=112, dropout=0, map_only=False)
        without = IRSE50(size_px=112, dropout=0, map_only=True)
    assert parameters(network.input_layer) + parameters(network.body) == 30_950_080
    assert parameters(network) == 43_797_696
    keys = network.state_dict()
    assert len(network.body) == 24
    for key, shape in {
        "input_layer.0.weight": (64, 3, 3, 3),
        "input_layer.2.weight": (64,),
        "body.0.res_layer.0.running_var": (64,),
        "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
        "body.3.shortcut_layer.1.bias": (128,),
        "body.23.res_layer.3.weight": (512, 512, 3, 3),
        "body.23.res_layer.5.fc1.weight": (32, 512, 1, 1),
        "body.23.res_layer.5.fc2.weight": (512, 32, 1, 1),
        "output_layer.0.weight": (512,),
        "output_layer.3.weight": (512, 25088),
        "output_layer.4.running_mean": (512,),
    }.items():
        assert keys[key].shape == shape, key
    assert not any(key.startswith("body.0.shortcut_layer") for key in keys)  # a shortcut without weights
    cut = {key for key in keys if key.startswith(IRSE50.CUT)}
    assert len(cut) == 7
    assert set(keys) - set(without.state_dict()) == cut


def test_forward_at_a_small_size() -> None:
    network = IRSE50(size_px=32, dropout=0.4, map_only=False).eval()
    with torch.no_grad():
        features = network(torch.randn(2, 3, 32, 32))
        assert features.shape == (2, 512, 2, 2) == (2, network.channels, *network.grid)
        assert network.embed(features).shape == (2, network.width)


def test_shortcut_takes_every_second_pixel_and_the_gate_scales_channels() -> None:
    torch.manual_seed(0)
    block = Block(inner=16, width=16, stride=2).eval()
    x = torch.randn(2, 16, 6, 6)
    rest = block.res_layer[:-1](x)
    gate = block.res_layer[-1](rest) / rest
    torch.testing.assert_close(gate, gate[..., :1, :1].expand_as(gate), rtol=1e-3, atol=1e-4)
    assert ((gate > 0) & (gate < 1)).all()
    torch.nn.init.zeros_(block.res_layer[4].weight)
    assert torch.equal(block(x), x[..., ::2, ::2])
