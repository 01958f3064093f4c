import pytest
import torch
from torch import nn

from aupipe.config import load
from aupipe.errors import ConfigError
from aupipe.training import optim
from aupipe.training.optim import Cosine, Exponential, Milestones, OptimizerConfig, Polynomial, Restarts, Warmup

pytestmark = pytest.mark.unit

EXPONENTIAL = {"kind": "exponential", "lr": 5e-5, "factor": 0.99}


def rate(schedule: object, step: int) -> float:
    return optim.learning_rate(schedule, step=step, steps_per_epoch=100, epochs=10, batch=64)


def test_exponential_falls_by_epoch() -> None:
    schedule = Exponential(**EXPONENTIAL)
    assert rate(schedule, 99) == 5e-5
    assert rate(schedule, 250) == pytest.approx(5e-5 * 0.99**2)


def test_warmup_rises_to_its_peak_at_two_and_a_half_epochs() -> None:
    schedule = Warmup(kind="warmup", tokens=12, width=128)
    scale = 64 * 12 / 25000 * 128**-0.5
    assert rate(schedule, 0) == pytest.approx(scale * 250**-1.5)
    assert rate(schedule, 249) == pytest.approx(scale * 250**-0.5)
    assert rate(schedule, 999) == pytest.approx(scale * 1000**-0.5)
    assert max(range(1000), key=lambda step: rate(schedule, step)) == 249


def test_cosine_rises_then_ends_near_zero() -> None:
    schedule = Cosine(kind="cosine", lr=1e-3, warmup_epochs=1)
    assert rate(schedule, 49) == pytest.approx(0.5e-3)
    assert rate(schedule, 99) == pytest.approx(1e-3)
    assert rate(schedule, 550) == pytest.approx(0.5e-3)
    assert 0 < rate(schedule, 999) < 1e-7


@pytest.mark.parametrize("warmup_epochs", [0, 0.001, 0.015, 0.5, 0.999, 1.001])
def test_no_rate_is_above_that_of_a_cosine_whose_rise_ends_within_a_step(warmup_epochs: float) -> None:
    schedule = Cosine(kind="cosine", lr=1e-3, warmup_epochs=warmup_epochs)
    rates = [rate(schedule, step) for step in range(1000)]
    assert max(rates) == pytest.approx(1e-3, rel=1e-3)
    assert max(rates) <= 1e-3
    assert max(range(1000), key=rates.__getitem__) <= 100 * warmup_epochs + 1


def test_milestones_of_yu_et_al() -> None:
    schedule = Milestones(kind="milestones", lr=1e-3, epochs=(4, 6, 8))
    rates = [rate(schedule, 100 * epoch) for epoch in range(10)]
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 2 + [1e-5] * 2 + [1e-6] * 2)


def test_restarts_begin_anew_and_drop_late() -> None:
    schedule = Restarts(kind="restarts", lr=0.9, period_epochs=4, lowest=0.1, drop_epoch=8)
    assert rate(schedule, 0) == rate(schedule, 400) == pytest.approx(0.9)
    assert rate(schedule, 200) == pytest.approx(0.9 * 0.55)
    assert rate(schedule, 399) == pytest.approx(0.09, rel=1e-3)
    assert rate(schedule, 800) == pytest.approx(0.09)


def test_polynomial_ends_at_zero() -> None:
    schedule = Polynomial(kind="polynomial", lr=0.1, power=2)
    assert rate(schedule, 0) == 0.1
    assert rate(schedule, 500) == pytest.approx(0.025)
    assert rate(schedule, 999) == pytest.approx(1e-7)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def config(*prefixes: list[str], **settings: object) -> OptimizerConfig:
    groups = [{"parameters": p, "schedule": EXPONENTIAL, "weight_decay": i} for i, p in enumerate(prefixes)]
    return load(OptimizerConfig, {"groups": groups, **settings})


def test_every_parameter_belongs_to_its_longest_prefix() -> None:
    net = Net()
    optimizer = optim.build(net, config([""], ["head", "body.0"], ["head.3"]))
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    assert sizes == [8, 20 + 20 + 8, 10]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 1, 2]


def test_unnamed_modules_are_frozen_to_the_bit_buffers_too() -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = optim.build(net, config(["head"]))
    before = {k: v.clone() for k, v in net.body.state_dict().items()}
    head = net.head[0].weight.clone()
    for _ in range(3):
        optim.train_mode(net)
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in net.body.state_dict().items())
    assert not torch.equal(head, net.head[0].weight)
    assert not net.body[2].training
    assert net.head[2].training
    x = torch.randn(8, 4)
    assert torch.equal(net.body(x), net.body(x))  # no dropout in the frozen part


def test_norms_can_be_excluded_from_decay() -> None:
    group = {"parameters": [""], "schedule": EXPONENTIAL, "weight_decay": 0.1, "decay_norms": False}
    net = Net()
    optimizer = optim.build(net, load(OptimizerConfig, {"kind": "sgd", "momentum": 0.8, "groups": [group]}))
    assert isinstance(optimizer, torch.optim.SGD)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"], decayed["momentum"]) == (0.1, 0, 0.8)
    assert {id(p) for p in spared["params"]} == {id(p) for bn in (net.body[1], net.head[1]) for p in bn.parameters()}
    assert [g["number"] for g in optimizer.param_groups] == [0, 0]


def test_a_prefix_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'tail'.*body\.0"):
        optim.build(Net(), config(["head"], ["tail"]))
    with pytest.raises(ConfigError, match="'hea'"):
        optim.build(Net(), config(["hea"]))  # a prefix of a name's part is no prefix


def test_decay_of_one_is_the_authors_undivided_decay() -> None:
    """TensorFlow Addons: θ ← θ − wd·θ with wd = lr; PyTorch: θ ← θ − lr·weight_decay·θ."""
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([parameter], lr=5e-5, weight_decay=1.0)
    parameter.grad = torch.zeros(1)
    optimizer.step()
    assert parameter.item() == pytest.approx(1 - 5e-5)
