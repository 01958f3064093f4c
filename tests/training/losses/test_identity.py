import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aupipe.training import losses
from aupipe.training.losses.identity import CosFace

pytestmark = pytest.mark.unit

IDENTITIES, WIDTH = 20, 8


def cosface(*, margin: float = 0.4, sample_rate: float = 1.0) -> CosFace:
    torch.manual_seed(0)
    config = losses.CosFaceConfig(margin=margin, sample_rate=sample_rate)
    return losses.build_identity(config, identities=IDENTITIES, width=WIDTH)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, WIDTH, generator=generator), torch.tensor([3, 19, 3, -1, 0, 7])


def test_without_margin_it_is_cross_entropy_of_scaled_cosines() -> None:
    loss, (x, y) = cosface(margin=0), batch()
    cosines = functional.normalize(x) @ functional.normalize(loss.centers).T
    torch.testing.assert_close(loss(x, y), functional.cross_entropy(64 * cosines, y, ignore_index=-1))


def test_margin_against_the_formula_and_never_a_lower_loss() -> None:
    x, y = batch()
    loss, x, y = cosface(), x[:1], y[:1]
    cosines = torch.cosine_similarity(x, loss.centers)
    own, others = (64 * (cosines[3] - 0.4)).exp(), (64 * torch.cat([cosines[:3], cosines[4:]])).exp()
    torch.testing.assert_close(loss(x, y), -(own / (own + others.sum())).log(), rtol=1e-4, atol=1e-4)
    values = [cosface(margin=margin)(*batch()).item() for margin in (0, 0.1, 0.4, 0.9)]
    assert values == sorted(values)


def test_gradient_turns_the_embedding_and_never_stretches_it() -> None:
    x, y = batch()
    x.requires_grad_()
    cosface()(x, y).backward()
    assert (x.grad[3] == 0).all(), "an unknown identity teaches nothing"
    norms = x.grad.norm(dim=1) * x.norm(dim=1)
    assert ((x.grad * x).sum(dim=1).abs() <= 1e-5 * norms).all()
    assert (norms[[0, 1, 2, 4, 5]] > 0).all()


def test_gradient_is_that_of_the_value() -> None:
    loss, (x, y) = cosface().double(), batch()
    assert torch.autograd.gradcheck(lambda z: loss(z, y), (x.double().requires_grad_(),))


def test_sampling_keeps_what_is_present_and_the_rate() -> None:
    loss = cosface(sample_rate=0.3)
    present = torch.tensor([3, 19, 3, 0])
    draws = [loss.sample(present).tolist() for _ in range(20)]
    for drawn in draws:
        assert {0, 3, 19} <= set(drawn)
        assert len(drawn) == len(set(drawn)) == 6
        assert drawn == sorted(drawn)
    assert set().union(*draws) == set(range(IDENTITIES)), "negatives are drawn anew"
    assert len(cosface(sample_rate=0.05).sample(present)) == 3, "more identities in the batch than the rate allows"


def test_the_draw_follows_torchs_seed() -> None:
    loss, (x, y) = cosface(sample_rate=0.3), batch()
    values = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        values.append(loss(x, y).item())
    assert values[0] == values[1] != values[2]


def test_sampled_loss_is_the_softmax_over_the_sample() -> None:
    loss, (x, y) = cosface(sample_rate=0.3), batch()
    torch.manual_seed(5)
    chosen = loss.sample(y[y >= 0])
    torch.manual_seed(5)
    value = loss(x, y)
    cosines = functional.normalize(x) @ functional.normalize(loss.centers).T
    logits = 64 * (cosines - 0.4 * functional.one_hot(y.clamp(min=0), IDENTITIES))
    within = logits.gather(1, y.clamp(min=0)[:, None])[:, 0] - logits[:, chosen].logsumexp(1)
    torch.testing.assert_close(value, -within[y >= 0].mean())
    value.backward()
    left_out = sorted(set(range(IDENTITIES)) - set(chosen.tolist()))
    assert (loss.centers.grad[left_out] == 0).all()


def test_rate_one_and_validation_use_every_identity() -> None:
    x, y = batch()
    full = cosface()(x, y)
    assert cosface(sample_rate=0.3).eval()(x, y) == full
    assert cosface(sample_rate=0.3)(x, y) < full


@pytest.mark.parametrize("sample_rate", [1.0, 0.3])
def test_nothing_known_is_zero_with_zero_gradients(sample_rate: float) -> None:
    loss, x = cosface(sample_rate=sample_rate), batch()[0].requires_grad_()
    value = loss(x, torch.full((6,), -1))
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()
    assert (loss.centers.grad == 0).all()


def test_finite_for_huge_embeddings_and_centers_start_small() -> None:
    loss = losses.build_identity(losses.CosFaceConfig(), identities=500, width=64)
    assert loss.centers.std().item() == pytest.approx(0.01, rel=0.05)
    x = torch.full((2, 64), 1e3, requires_grad=True)
    loss(x, torch.tensor([0, 1])).backward()
    assert x.grad.isfinite().all()
