"""Graphs whose grouped convolutions were joined: the same outputs, and groups of 16 channels where that is possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from aupipe.models.wide_groups import widen_groups
from aupipe.onnx_session import open_session

pytestmark = pytest.mark.unit


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 5, 1), nn.Conv2d(5, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Block(nn.Module):
    """A block of a RegNet. `taps` also returns the channels between its layers."""

    def __init__(self, channels: int, groups: int, gated: bool = True, taps: Sequence[str] = ()) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 1)
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.gate = Gate(channels) if gated else nn.Identity()
        self.last = nn.Conv2d(channels, 7, 1)
        self.taps = taps

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        before = self.first(x).relu()
        inside = self.grouped(before).relu()
        gated = self.gate(inside)
        found = {"before": before, "inside": inside, "gated": gated}
        return self.last(gated), *(found[name] for name in self.taps)


def graph_of(module: nn.Module) -> onnx.ModelProto:
    program = torch.onnx.export(
        module.eval(), (torch.zeros(1, 3, 8, 8),), dynamo=True, verbose=False, opset_version=20, input_names=["x"]
    )
    assert program is not None
    return program.model_proto


def groups(model: onnx.ModelProto) -> list[int]:
    return [a.i for node in model.graph.node if node.op_type == "Conv" for a in node.attribute if a.name == "group"]


def check(module: nn.Module, expected: list[int]) -> None:
    """Check the groups after the change, and that all outputs are the same."""
    model = graph_of(module)
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    before = open_session(model.SerializeToString()).run(None, {"x": x})
    widen_groups(model)
    onnx.checker.check_model(model, full_check=True)
    assert [each for each in groups(model) if each > 1] == expected
    for values, reference in zip(open_session(model.SerializeToString()).run(None, {"x": x}), before, strict=True):
        assert values.shape == reference.shape
        np.testing.assert_allclose(values, reference, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("channels", "width", "after"),
    [(32, 8, 2), (24, 8, 2), (40, 8, 3), (40, 4, 3), (36, 2, 3), (48, 16, 3), (64, 32, 2), (36, 12, 3)],
)
def test_groups_are_joined(channels: int, width: int, after: int, gated: bool) -> None:
    """Groups of 16 and more channels, and those that do not divide 16, stay as they are."""
    torch.manual_seed(0)
    check(Block(channels, channels // width, gated), [after])


def test_a_single_wide_group_is_left() -> None:
    torch.manual_seed(0)
    check(Block(16, 2), [])


def test_depthwise_convolutions_stay() -> None:
    torch.manual_seed(0)
    check(Block(32, 32), [32])


@pytest.mark.parametrize("tap", ["before", "inside", "gated"])
def test_channels_that_something_else_uses_are_not_padded(tap: str) -> None:
    torch.manual_seed(0)
    check(Block(24, 3, taps=[tap]), [3])
    check(Block(32, 4, taps=[tap]), [2])


def test_layers_with_common_weights_stay() -> None:
    torch.manual_seed(0)
    block = Block(32, 4)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            return self.block.grouped(self.block.grouped(self.block.first(x)))

    check(Twice(), [4, 4])


def test_a_grouped_convolution_after_another_one_stays_if_channels_are_missing() -> None:
    torch.manual_seed(0)

    class AfterGroups(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spread, self.grouped = nn.Conv2d(3, 24, 1, groups=3), nn.Conv2d(24, 24, 3, groups=3)
            self.last = nn.Conv2d(24, 7, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.grouped(self.spread(x)))

    check(AfterGroups(), [3, 3])
