import pytest
import torch

from aupipe.models.tdnn import FTDNN, NETWORKS, TDNN, FactorizedLayer

pytestmark = pytest.mark.unit


def test_paper_sizes() -> None:
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in make(width=512).parameters()) for name, make in NETWORKS.items()}
    assert counts == {"tdnn": 2_268_672, "ftdnn": 9_948_160}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("length", [1, 2, 7, 201])
def test_time_keeps_its_length(name: str, length: int) -> None:
    network = NETWORKS[name](width=16).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 64, length)).shape == (2, 16, length)


@pytest.mark.parametrize(("network", "reach"), [(TDNN(width=16), 7), (FTDNN(width=16), 21)])
def test_receptive_field_is_as_documented(network: torch.nn.Module, reach: int) -> None:
    mel = torch.randn(1, 64, 101, requires_grad=True)
    network.eval()(mel)[0, :, 50].sum().backward()
    seen = mel.grad[0].abs().sum(dim=0).nonzero()[:, 0]
    assert (seen.min().item(), seen.max().item()) == (50 - reach, 50 + reach)


def test_bottlenecks_begin_near_semi_orthogonal() -> None:
    torch.manual_seed(0)
    matrix = FactorizedLayer(1024, context=2).steps[0].weight.flatten(1)
    product = matrix @ matrix.T
    assert product.diagonal().mean().item() == pytest.approx(1, abs=0.02)
    assert (product - product.diagonal().diag()).abs().mean().item() < 0.03
