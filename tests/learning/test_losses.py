import numpy as np
import pytest
import torch
from torch.nn import functional

from aupipe.learning import losses
from aupipe.learning.losses import LossConfig

pytestmark = pytest.mark.unit

RATES = np.array([0.122, 0.052, 0.165, 0.272, 0.410, 0.355, 0.250, 0.028, 0.032, 0.029, 0.646, 0.078])


def test_frequency_weights_of_affwild2() -> None:
    weights = losses.frequency_weights(torch.from_numpy(RATES))
    assert weights.mean().item() == pytest.approx(1)
    expected = [0.606, 1.422, 0.448, 0.272, 0.180, 0.208, 0.296, 2.642, 2.311, 2.551, 0.114, 0.948]
    assert weights.tolist() == pytest.approx(expected, abs=2e-3)


def test_equal_rates_give_plain_summed_bce() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 12), torch.randint(0, 2, (5, 12)).float()
    loss = losses.build(LossConfig(dice=0), np.full(12, 0.2))(logits, targets)
    plain = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(loss, plain)


def test_dice_values_at_one_half_and_range() -> None:
    one = torch.ones(1)
    assert losses.weighted_dice(torch.zeros(1, 1), torch.zeros(1, 1), one).item() == pytest.approx(0.2)
    assert losses.weighted_dice(torch.zeros(1, 1), torch.ones(1, 1), one).item() == pytest.approx(1 / 9)
    for logit in (-1e3, -3.0, 0.0, 3.0, 1e3):
        for target in (0.0, 0.3, 1.0):
            value = losses.weighted_dice(torch.full((1, 1), logit), torch.full((1, 1), target), one).item()
            assert -1e-6 <= value <= 1
    assert losses.weighted_dice(torch.full((1, 1), 1e3), torch.ones(1, 1), one).item() == pytest.approx(0)


def test_whole_loss_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(4, 12)), rng.integers(-1, 2, (4, 12)).astype(float)
    w = 12 / RATES / (1 / RATES).sum()
    total = 0.0
    for b in range(4):
        for t in range(12):
            if y[b, t] >= 0:
                p = 1 / (1 + np.exp(-z[b, t]))
                bce = -(y[b, t] * np.log(p) + (1 - y[b, t]) * np.log(1 - p))
                dice = 1 - (2 * y[b, t] * p + 1) / (y[b, t] ** 2 + p**2 + 1)
                total += w[t] * (bce + 0.5 * dice)
    loss = losses.build(LossConfig(), RATES)(torch.from_numpy(z), torch.from_numpy(y))
    assert loss.item() == pytest.approx(total / 4, rel=1e-5)


def test_unknown_entries_have_no_gradient_and_extreme_logits_are_finite() -> None:
    logits = (torch.randn(3, 12) * 1e3).requires_grad_()
    targets = torch.randint(0, 2, (3, 12)).float()
    targets[1] = -1
    targets[0, 4] = -1
    loss = losses.build(LossConfig(), RATES)(logits, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().max() == 0
    assert logits.grad[0, 4] == 0
