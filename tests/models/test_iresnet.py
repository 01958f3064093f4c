import pytest
import torch

from aupipe.models.iresnet import VARIANTS, Block, IResNet, UnscaledBatchNorm1d

pytestmark = pytest.mark.unit

QUICK = VARIANTS["iresnet_quick"]


def published_layout(depths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of InsightFace's state dicts at 112 px, written down independently of our classes."""

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.{k}": (width,) for k in ("weight", "bias", "running_mean", "running_var")} | {
            f"{name}.num_batches_tracked": ()
        }

    keys = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)} | norm("bn1", 64)
    inner = 64
    for stage, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
        for number in range(depth):
            top = f"layer{stage}.{number}"
            keys |= norm(f"{top}.bn1", inner) | norm(f"{top}.bn2", width) | norm(f"{top}.bn3", width)
            keys |= {f"{top}.conv1.weight": (width, inner, 3, 3), f"{top}.conv2.weight": (width, width, 3, 3)}
            keys[f"{top}.prelu.weight"] = (width,)
            if number == 0:
                keys[f"{top}.downsample.0.weight"] = (width, inner, 1, 1)
                keys |= norm(f"{top}.downsample.1", width)
            inner = width
    keys |= norm("bn2", 512) | norm("features", 512)
    return keys | {"fc.weight": (512, 25088), "fc.bias": (512,)}


@pytest.mark.parametrize(
    ("name", "depths", "whole", "trunk"),
    [
        ("iresnet18", (2, 2, 2, 2), 24_025_600, 11_179_008),
        ("iresnet34", (3, 4, 6, 3), 34_139_328, 21_292_736),
        ("iresnet50", (3, 4, 14, 3), 43_590_848, 30_744_256),
        ("iresnet100", (3, 13, 30, 3), 65_156_160, 52_309_568),
    ],
)
def test_published_layout_and_parameter_counts(name: str, depths: tuple, whole: int, trunk: int) -> None:
    with torch.device("meta"):
        network = IResNet(variant=VARIANTS[name], size_px=112, dropout=0, map_only=False)
        without = IResNet(variant=VARIANTS[name], size_px=112, dropout=0, map_only=True)
    state = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert state == published_layout(depths)
    trained = sum(p.numel() for p in network.parameters())
    assert trained == whole - 512  # the scale of the last batch norm is published, but never trained
    assert trained + network.features.weight.numel() == whole
    assert sum(p.numel() for p in without.parameters()) == trunk
    assert set(state) - set(without.state_dict()) == {k for k in state if k.startswith(("fc.", "features."))}


def test_a_published_state_dict_loads_strictly_and_is_used() -> None:
    torch.manual_seed(0)
    one = IResNet(variant=QUICK, size_px=112, dropout=0, map_only=False).eval()
    two = IResNet(variant=QUICK, size_px=112, dropout=0.6, map_only=False).eval()
    frames = torch.randn(2, 3, 112, 112)
    assert not torch.equal(one.embed(one(frames)), two.embed(two(frames)))
    two.load_state_dict(one.state_dict(), strict=True)
    assert torch.equal(one.embed(one(frames)), two.embed(two(frames)))


def test_scale_of_the_embedding_stays_one_with_gradients_enabled() -> None:
    norm = UnscaledBatchNorm1d(5)
    norm.requires_grad_(True)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    optimizer = torch.optim.SGD(norm.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        norm(torch.randn(4, 5)).pow(3).sum().backward()
        optimizer.step()
    assert torch.equal(norm.state_dict()["weight"], torch.ones(5))
    assert norm.bias.abs().sum() > 0


@pytest.mark.parametrize(("size_px", "grid"), [(112, 7), (64, 4), (50, 4), (16, 1)])
def test_map_and_embedding_follow_the_input_size(size_px: int, grid: int) -> None:
    network = IResNet(variant=QUICK, size_px=size_px, dropout=0, map_only=False)
    features = network(torch.randn(2, 3, size_px, size_px))
    assert features.shape == (2, 128, grid, grid)
    assert network.grid == (grid, grid)
    assert network.embed(features).shape == (2, 128)


def test_block_strides_in_its_second_convolution_and_ends_with_the_sum() -> None:
    torch.manual_seed(0)
    block = Block(inner=4, width=4, stride=1)
    torch.nn.init.zeros_(block.bn3.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)  # negative values too: no activation behind the sum
    wide = Block(inner=4, width=8, stride=2)
    assert (wide.conv1.stride, wide.conv2.stride) == ((1, 1), (2, 2))
    assert wide(x).shape == (2, 8, 3, 3)


def test_initial_convolutions_have_the_published_spread() -> None:
    torch.manual_seed(0)
    network = IResNet(variant=QUICK, size_px=32, dropout=0, map_only=True)
    assert network.layer4[0].conv2.weight.std().item() == pytest.approx(0.1, rel=0.02)
