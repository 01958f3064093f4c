import pytest
import torch

from aupipe.errors import ConfigError
from aupipe.models.fusion import AttentionFusion, FixedFusion, fuse

pytestmark = pytest.mark.unit


def attention(weight: str = "pair", heads: int = 4) -> AttentionFusion:
    torch.manual_seed(0)
    return AttentionFusion(
        channels=16, pooled=10, layers=2, heads=heads, mlp_width=32, dropout=0.1, weight=weight
    ).eval()  # fmt: skip


def test_the_ends_and_the_middle() -> None:
    related, whole = torch.randn(3, 12), torch.randn(3, 12)
    assert torch.equal(fuse(torch.ones(3, 1), related, whole), related)
    assert torch.equal(fuse(torch.zeros(3, 1), related, whole), whole)
    half = FixedFusion(weight=0.5)(torch.randn(3, 10), torch.randn(3, 12, 16))
    torch.testing.assert_close(fuse(half, related, whole), (related + whole) / 2)


@pytest.mark.parametrize(("weight", "shape"), [("pair", (5, 1)), ("per_au", (5, 12))])
def test_weights_differ_from_face_to_face_and_stay_convex(weight: str, shape: tuple) -> None:
    fusion = attention(weight)
    weights = fusion(5 * torch.randn(5, 10), 5 * torch.randn(5, 12, 16))
    assert weights.shape == shape
    assert ((weights > 0) & (weights < 1)).all()
    assert weights[:, 0].std() > 1e-3


def test_pair_is_the_softmax_of_two_scores() -> None:
    fusion = attention()
    scores = []
    fusion.predict.register_forward_hook(lambda _module, _inputs, output: scores.append(output))
    weights = fusion(torch.randn(3, 10), torch.randn(3, 12, 16))
    assert scores[0].shape == (3, 2)
    torch.testing.assert_close(torch.cat([weights, 1 - weights], dim=-1), scores[0].softmax(dim=-1))


def test_fourteen_tokens_and_action_units_are_a_set() -> None:
    fusion, seen = attention(), []
    fusion.layers.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape))
    whole, related = torch.randn(2, 10), torch.randn(2, 12, 16)
    weights = fusion(whole, related)
    assert seen == [(2, 14, 16)]
    torch.testing.assert_close(fusion(whole, related[:, torch.randperm(12)]), weights)
    assert (fusion(whole, related.roll(1, dims=0)) - weights).abs().max() > 1e-5
    assert (fusion(whole.roll(1, dims=0), related) - weights).abs().max() > 1e-5


def test_every_fused_part_gets_a_gradient() -> None:
    fusion = attention("per_au")
    whole, related = torch.randn(2, 10, requires_grad=True), torch.randn(2, 12, 16, requires_grad=True)
    fusion(whole, related).square().sum().backward()
    for tensor in (whole, related, *fusion.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert fusion.token.grad.abs().sum() > 0
    assert (related.grad.abs().sum(-1) > 0).all()


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match=r"model\.fusion_heads: 5"):
        attention(heads=5)
