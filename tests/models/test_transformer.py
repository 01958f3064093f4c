import pytest
import torch

from aupipe.models.transformer import Attention, DecoderLayer, EncoderLayer

pytestmark = pytest.mark.unit


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(width=16, heads=4).eval()


def test_zero_mask_is_no_mask(attention: Attention) -> None:
    q, k = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    assert torch.equal(attention(q, k)[0], attention(q, k, torch.zeros(5, 7, dtype=torch.bool))[0])


def test_masking_a_key_is_deleting_it(attention: Attention) -> None:
    q, k = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[:, 3] = True
    kept = [0, 1, 2, 4, 5, 6]
    torch.testing.assert_close(attention(q, k, mask)[0], attention(q, k[:, kept])[0])
    per_item = mask.expand(2, 5, 7)
    assert torch.equal(attention(q, k, mask)[0], attention(q, k, per_item)[0])


def test_fully_masked_query_attends_to_nothing_and_has_finite_gradient(attention: Attention) -> None:
    q, k = torch.randn(1, 2, 16, requires_grad=True), torch.randn(1, 3, 16, requires_grad=True)
    mask = torch.tensor([[True, True, True], [False, False, True]])
    mixed, weights = attention(q, k, mask)
    assert weights[0, :, 0].abs().max() == 0
    torch.testing.assert_close(mixed[0, 0], attention.output.bias)
    mixed.sum().backward()
    assert torch.isfinite(q.grad).all()
    assert torch.isfinite(k.grad).all()
    assert k.grad[0, 2].abs().max() == 0


def test_single_head_matches_the_formula() -> None:
    torch.manual_seed(1)
    attention = Attention(width=8, heads=1)
    q, k = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    scores = attention.query(q) @ attention.key(k).mT / 8**0.5
    torch.testing.assert_close(attention(q, k)[0], attention.output(scores.softmax(-1) @ attention.value(k)))


@pytest.mark.parametrize("two_mlps", [False, True])
def test_post_norm_outputs_are_standardized(two_mlps: bool) -> None:
    torch.manual_seed(2)
    image = EncoderLayer(width=64, heads=4, hidden=128, dropout=0.0)(5 * torch.randn(3, 9, 64) + 2)
    decoder = DecoderLayer(width=64, heads=4, hidden=128, dropout=0.0, two_mlps=two_mlps)
    labels, weights = decoder(torch.randn(3, 12, 64), image)
    for out in (image, labels):
        torch.testing.assert_close(out.mean(-1), torch.zeros(out.shape[:-1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(out.var(-1, unbiased=False), torch.ones(out.shape[:-1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 12))
