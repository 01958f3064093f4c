import pytest
import torch

from aupipe.errors import ConfigError
from aupipe.models.lrp import LRP

pytestmark = pytest.mark.unit


@pytest.fixture
def lrp() -> LRP:
    torch.manual_seed(0)
    return LRP(channels=32, branches=3, reduction=4)


def test_parameters_of_a_branch() -> None:
    lrp = LRP(channels=512, branches=4, reduction=16)
    assert [sum(p.numel() for p in branch.parameters()) for branch in lrp.branches] == [16_449] * 4
    assert sum(p.numel() for p in lrp.parameters()) == 4 * 16_449


def test_attention_is_the_strongest_branch_at_each_location(lrp: LRP) -> None:
    features = 3 * torch.randn(5, 32, 7, 7)
    attention = lrp.attention(features)
    assert attention.shape == (5, 1, 7, 7)
    assert ((attention > 0) & (attention < 1)).all()
    branches = torch.stack([branch(features).sigmoid() for branch in lrp.branches])
    assert torch.equal(attention, branches.max(dim=0).values)
    assert len(branches.argmax(dim=0).unique()) == 3  # every branch is the strongest somewhere
    torch.testing.assert_close(lrp(features), features * attention)


def test_zero_branches_give_an_attention_of_one_half(lrp: LRP) -> None:
    for branch in lrp.branches:
        torch.nn.init.zeros_(branch[-1].weight)
        torch.nn.init.zeros_(branch[-1].bias)
    features = torch.randn(2, 32, 4, 4)
    assert (lrp.attention(features) == 0.5).all()
    assert torch.equal(lrp(features), features / 2)


def test_only_the_strongest_branch_gets_a_gradient(lrp: LRP) -> None:
    torch.nn.init.constant_(lrp.branches[1][-1].bias, 5.0)
    lrp.attention(torch.randn(2, 32, 4, 4)).sum().backward()
    # Zero, not None: all are part of the graph, or DistributedDataParallel would stop.
    assert [bool(branch[-1].bias.grad != 0) for branch in lrp.branches] == [False, True, False]


def test_a_reduction_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.reduction: 5"):
        LRP(channels=32, branches=1, reduction=5)
