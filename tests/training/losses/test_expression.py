import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aupipe.training import losses

pytestmark = pytest.mark.unit

EVERY = [losses.CrossEntropyConfig(), losses.SoftmaxFocalConfig(), losses.SigmoidFocalConfig()]
every = pytest.mark.parametrize("loss", [losses.build_expr(c) for c in EVERY], ids=lambda loss: str(loss)[:9])


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 7, generator=generator, dtype=dtype) * 2, torch.tensor([0, 6, -1, 3, 3, -1])


@every
def test_gradient_is_that_of_the_value_and_none_where_unknown(loss: nn.Module) -> None:
    logits, targets = batch()
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), (logits.requires_grad_(),))
    loss(logits, targets).backward()
    assert (logits.grad[targets < 0] == 0).all()
    assert (logits.grad[targets >= 0] != 0).all()
    assert loss(logits, targets).item() == pytest.approx(loss(logits[targets >= 0], targets[targets >= 0]).item())


@every
def test_finite_at_extreme_logits(loss: nn.Module) -> None:
    logits = torch.tensor([[1e3, -1e3, 0.0], [-1e3, 1e3, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([0, 0]))
    value.backward()
    assert value.isfinite()
    assert value > 1
    assert logits.grad.isfinite().all()


@every
def test_nothing_known_is_zero_with_zero_gradients(loss: nn.Module) -> None:
    logits = torch.randn(3, 8, requires_grad=True)
    value = loss(logits, torch.full((3,), -1))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_cross_entropy_is_torchs() -> None:
    logits, targets = batch()
    expected = functional.cross_entropy(logits, targets, ignore_index=-1)
    torch.testing.assert_close(losses.build_expr(losses.CrossEntropyConfig())(logits, targets), expected)


def test_softmax_focal_against_its_formula_and_without_focus_cross_entropy() -> None:
    logits, targets = batch()
    known = targets >= 0
    p = logits.softmax(1)[known].gather(1, targets[known, None])
    naive = (-0.25 * (1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(losses.build_expr(losses.SoftmaxFocalConfig())(logits, targets), naive)
    unfocused = losses.build_expr(losses.SoftmaxFocalConfig(alpha=1, gamma=0))(logits, targets)
    torch.testing.assert_close(unfocused, functional.cross_entropy(logits, targets, ignore_index=-1))


def test_sigmoid_focal_uses_every_class_of_the_one_hot_vector() -> None:
    logits, targets = batch()
    known = targets >= 0
    y = functional.one_hot(targets[known], 7)
    p = logits[known].sigmoid()
    naive = -(0.25 * y * (1 - p) ** 2 * p.log() + 0.75 * (1 - y) * p**2 * (1 - p).log()).mean()
    torch.testing.assert_close(losses.build_expr(losses.SigmoidFocalConfig())(logits, targets), naive)
