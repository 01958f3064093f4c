import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from aupipe.errors import ConfigError, DatasetError
from aupipe.training import losses
from aupipe.training.losses.au import BceCircle, Focal, dice_entries, frequency_weights

pytestmark = pytest.mark.unit

RATES = np.array([0.122, 0.052, 0.165, 0.272, 0.410, 0.355, 0.250, 0.028, 0.032, 0.029, 0.646, 0.078])
CPIC = [1, 2, 1, 1, 1, 1, 1, 6, 6, 5, 1, 5]
EVERY = [
    losses.BceDiceConfig(), losses.BceConfig(), losses.PositiveWeightedBceConfig(),
    losses.PositiveWeightedBceConfig(mean_over="all", smoothing=0.05), losses.BceCircleConfig(), losses.FocalConfig(),
    losses.FocalConfig(gamma=0.5),
]  # fmt: skip
every = pytest.mark.parametrize("loss", [losses.build_au(c, RATES) for c in EVERY], ids=lambda loss: str(loss)[:9])


def batch(rows: int = 5, dtype: torch.dtype = torch.float32, unknown: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 12, generator=generator, dtype=dtype) * 2
    targets = torch.randint(0, 2, (rows, 12), generator=generator).to(dtype)
    targets[torch.rand(rows, 12, generator=generator) < unknown] = -1
    return logits, targets


@every
def test_gradient_is_that_of_the_value(loss: nn.Module) -> None:
    logits, targets = batch(3, torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), (logits.requires_grad_(),))


@every
def test_finite_at_extreme_logits_and_unknown_entries_have_no_gradient(loss: nn.Module) -> None:
    _, targets = batch(6)
    targets[1] = -1
    logits = torch.full_like(targets, 1e3)
    logits[::2] *= -1
    logits.requires_grad_()
    value = loss(logits, targets)
    value.backward()
    assert value.isfinite()
    assert value > 0
    assert logits.grad.isfinite().all()
    assert (logits.grad[targets < 0] == 0).all()
    assert value == loss(torch.where(targets < 0, -7.0, logits), targets), "an unknown entry's logit counts"


@every
def test_nothing_known_is_zero_with_zero_gradients(loss: nn.Module) -> None:
    logits = torch.randn(4, 12, requires_grad=True)
    value = loss(logits, torch.full((4, 12), -1.0))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@every
def test_half_precision_logits_are_computed_in_float32(loss: nn.Module) -> None:
    logits, targets = batch()
    half = logits.bfloat16()
    assert loss(half, targets) == loss(half.float(), targets)
    assert loss(half, targets).dtype == torch.float32


def test_weights_follow_the_rates_of_affwild2() -> None:
    weights = frequency_weights(RATES)
    assert weights.mean() == pytest.approx(1)
    expected = [0.606, 1.422, 0.448, 0.272, 0.180, 0.208, 0.296, 2.642, 2.311, 2.551, 0.114, 0.948]
    assert weights.tolist() == pytest.approx(expected, abs=2e-3)


def test_an_au_without_positives_takes_no_weight_from_the_others() -> None:
    rates = RATES.copy()
    rates[7] = 0
    weights = frequency_weights(rates)
    assert weights[7] == 0
    assert np.delete(weights, 7) == pytest.approx(frequency_weights(np.delete(RATES, 7)))
    assert (frequency_weights(RATES) == (1 / RATES) / (1 / RATES).mean()).all()
    with pytest.raises(DatasetError, match="positive for any AU"):
        frequency_weights(np.zeros(12))


def test_equal_rates_give_plain_summed_bce() -> None:
    logits, targets = batch(unknown=0)
    loss = losses.build_au(losses.BceDiceConfig(dice=0), np.full(12, 0.2))(logits, targets)
    plain = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(loss, plain)


def test_dice_values_at_one_half_and_range() -> None:
    half = torch.tensor(0.5)
    assert dice_entries(half, torch.tensor(0.0)).item() == pytest.approx(0.2)
    assert dice_entries(half, torch.tensor(1.0)).item() == pytest.approx(1 / 9)
    p, y = torch.meshgrid(torch.linspace(0, 1, 21), torch.linspace(0, 1, 11), indexing="ij")
    values = dice_entries(p, y)
    assert values.min() >= -1e-6
    assert values.max() <= 1
    assert values[20, 10].item() == pytest.approx(0)


def test_bce_dice_against_a_loop() -> None:
    z, y = (x.numpy() for x in batch(4, torch.float64))
    w = 12 / RATES / (1 / RATES).sum()
    total = 0.0
    for b in range(4):
        for t in range(12):
            if y[b, t] >= 0:
                p = 1 / (1 + np.exp(-z[b, t]))
                bce = -(y[b, t] * np.log(p) + (1 - y[b, t]) * np.log(1 - p))
                dice = 1 - (2 * y[b, t] * p + 1) / (y[b, t] ** 2 + p**2 + 1)
                total += w[t] * (bce + 0.5 * dice)
    loss = losses.build_au(losses.BceDiceConfig(), RATES)(torch.from_numpy(z), torch.from_numpy(y))
    assert loss.item() == pytest.approx(total / 4, rel=1e-5)


def test_plain_bce_is_torchs_mean_also_of_soft_labels() -> None:
    logits, targets = batch(unknown=0)
    targets = 0.9 * targets + 0.05
    torch.testing.assert_close(
        losses.build_au(losses.BceConfig(), RATES)(logits, targets),
        functional.binary_cross_entropy_with_logits(logits, targets),
    )


def test_positive_weights_count_positives_only_and_the_divisor_is_a_choice() -> None:
    logits, targets = batch(dtype=torch.float64)
    entries = functional.binary_cross_entropy_with_logits(
        logits, targets.clamp(min=0), pos_weight=torch.tensor(CPIC, dtype=torch.float64), reduction="none"
    )
    known = targets >= 0
    mean = losses.build_au(losses.PositiveWeightedBceConfig(), RATES)(logits, targets)
    torch.testing.assert_close(mean, entries[known].mean())
    authors = losses.build_au(losses.PositiveWeightedBceConfig(mean_over="all"), RATES)(logits, targets)
    torch.testing.assert_close(authors, entries[known].sum() / 60, rtol=1e-6, atol=0)


def test_smoothed_probabilities_against_the_formula() -> None:
    logits, targets = batch(dtype=torch.float64, unknown=0)
    p, w = logits.sigmoid(), torch.tensor([1, 2, 1, 1, 1, 1, 1, 3, 3, 3, 1, 2])
    naive = -(w * targets * ((p + 0.05) / 1.05).log() + (1 - targets) * ((1.05 - p) / 1.05).log()).mean()
    config = losses.PositiveWeightedBceConfig(weights=w.tolist(), smoothing=0.05)
    torch.testing.assert_close(losses.build_au(config, RATES)(logits, targets), naive)


def test_circle_loss_values_at_zero() -> None:
    circle = BceCircle(bce=0, circle=1)
    none, five = torch.zeros(1, 12), torch.tensor([[1.0] * 5 + [0.0] * 7])
    assert circle(torch.zeros(1, 12), none).item() == pytest.approx(2.564949, abs=1e-6)
    assert circle(torch.zeros(1, 12), five).item() == pytest.approx(3.871201, abs=1e-6)
    both = losses.build_au(losses.BceCircleConfig(), RATES)
    assert both(torch.zeros(1, 12), five).item() == pytest.approx(3.871201 + 0.693147, abs=2e-6)


def test_circle_loss_against_the_double_sum() -> None:
    logits, targets = batch(7)
    total = 0.0
    for s, y in zip(logits.tolist(), targets.tolist(), strict=True):
        negative = sum(math.exp(a) for a, b in zip(s, y, strict=True) if b == 0)
        positive = sum(math.exp(-a) for a, b in zip(s, y, strict=True) if b == 1)
        total += math.log(1 + negative) + math.log(1 + positive)
    assert BceCircle(bce=0, circle=1)(logits, targets).item() == pytest.approx(total / 7, rel=1e-5)


def test_circle_loss_separates_labels_and_ignores_confident_ones() -> None:
    targets = torch.tensor([[1.0] * 6 + [0.0] * 6])
    logits = torch.zeros(1, 12)
    logits[0, 0], logits[0, 11] = 40, -40
    logits.requires_grad_()
    BceCircle(bce=0, circle=1)(logits, targets).backward()
    assert (logits.grad[0, 1:6] < 0).all()
    assert (logits.grad[0, 6:11] > 0).all()
    assert logits.grad[0, [0, 11]].abs().max() < 1e-12


def test_circle_loss_refuses_soft_labels() -> None:
    with pytest.raises(ConfigError, match="mixup"):
        losses.build_au(losses.BceCircleConfig(), RATES)(torch.zeros(1, 12), torch.full((1, 12), 0.95))


def test_focal_values_at_zero() -> None:
    loss = losses.build_au(losses.FocalConfig(), RATES)
    assert loss(torch.zeros(1, 12), torch.ones(1, 12)).item() == pytest.approx(0.129965, abs=1e-6)
    assert loss(torch.zeros(1, 12), torch.zeros(1, 12)).item() == pytest.approx(0.043322, abs=1e-6)


def test_focal_without_focus_is_half_the_bce_and_focus_reduces_easy_entries() -> None:
    logits, targets = batch(unknown=0)
    bce = functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(Focal(alpha=0.5, gamma=0)(logits, targets), bce / 2)
    easy = torch.full((1, 12), 2.0)
    values = [Focal(alpha=0.5, gamma=gamma)(easy, torch.ones(1, 12)).item() for gamma in (0, 0.5, 1, 2, 5)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]


def test_focal_against_its_formula_also_of_soft_labels() -> None:
    logits, y = batch(dtype=torch.float64, unknown=0)
    y = 0.9 * y + 0.05
    p = logits.sigmoid()
    p_t = p * y + (1 - p) * (1 - y)
    bce = -(y * p.log() + (1 - y) * (1 - p).log())
    naive = ((0.75 * y + 0.25 * (1 - y)) * (1 - p_t) ** 2 * bce).mean()
    torch.testing.assert_close(Focal(alpha=0.75, gamma=2)(logits, y), naive)


def test_configuration_is_chosen_by_kind() -> None:
    adapter = TypeAdapter(losses.AuLossConfig)
    assert adapter.validate_python({"kind": "focal", "gamma": 1}) == losses.FocalConfig(gamma=1)
    with pytest.raises(ValidationError, match="gamma"):
        adapter.validate_python({"kind": "bce", "gamma": 1})
    with pytest.raises(ValidationError, match="12 items"):
        adapter.validate_python({"kind": "positive_weighted_bce", "weights": [1.0] * 7})
