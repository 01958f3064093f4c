import pytest
import torch

from aupipe.models.prenorm import PreNormLayer

pytestmark = pytest.mark.unit


@pytest.fixture
def layer() -> PreNormLayer:
    torch.manual_seed(0)
    return PreNormLayer(width=16, heads=4, hidden=32, dropout=0.1).eval()


@pytest.mark.parametrize(("hidden", "count"), [(1760, 2_328_920), (512, 1_229_432)])
def test_parameter_counts_of_width_440(hidden: int, count: int) -> None:
    layer = PreNormLayer(width=440, heads=10, hidden=hidden, dropout=0.1)
    assert sum(p.numel() for p in layer.parameters()) == count


def test_matches_the_formula(layer: PreNormLayer) -> None:
    x = torch.randn(2, 5, 16)
    y = layer.attention_norm(x)
    q, k, v = (part.unflatten(-1, (4, 4)).transpose(1, 2) for part in layer.qkv(y).chunk(3, dim=-1))
    mixed = ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)
    u = x + layer.output(mixed)
    inner = torch.nn.functional.gelu(layer.mlp.inner(layer.mlp_norm(u)))
    torch.testing.assert_close(layer(x), u + layer.mlp.outer(inner))


def test_padding_has_no_effect(layer: PreNormLayer) -> None:
    x = torch.randn(2, 6, 16)
    present = torch.ones(2, 6, dtype=torch.bool)
    present[1, 4:] = False
    torch.testing.assert_close(layer(x, present)[1, :4], layer(x[1:, :4])[0])
    torch.testing.assert_close(layer(x, present)[0], layer(x)[0])


def test_only_padding_stays_finite(layer: PreNormLayer) -> None:
    x = torch.randn(2, 3, 16, requires_grad=True)
    present = torch.tensor([[True, True, False], [False, False, False]])
    out = layer(x, present)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()


def test_token_order_does_not_matter_and_dropout_is_for_training(layer: PreNormLayer) -> None:
    x, order = torch.randn(2, 6, 16), torch.randperm(6)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])
    layer.train()
    assert not torch.equal(layer(x), layer(x))
