import pytest
import torch
from pydantic import ValidationError
from torch import nn

from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig
from aupipe.models.expression_transfer import au_head
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import SequenceBatch, System

pytestmark = pytest.mark.unit


def make(*outputs: str, **settings: object) -> System:
    torch.manual_seed(0)
    config = ExpressionTransferConfig(backbone="test_resnet", outputs=outputs, hidden=(32, 16), **settings)
    return build(config, InputSpec(size_px=64))


def test_paper_size() -> None:
    with torch.device("meta"):
        encoder = build(ExpressionTransferConfig(), InputSpec(size_px=224)).encoder
    assert sum(p.numel() for p in encoder.backbone.parameters()) == 23_508_032
    linear = [module for module in encoder.au.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(2048, 512), (512, 256), (256, 12)]
    assert sum(p.numel() for layer in linear for p in layer.parameters()) == 1_183_500


def test_hidden_layers_are_linear_norm_relu_dropout() -> None:
    kinds = [type(module) for module in au_head(width=8, hidden=(6, 4), dropout=0.5)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * 2 + [nn.Linear]


@pytest.mark.parametrize(
    ("outputs", "width"), [(("au",), 12), (("expr",), 7), (("au", "expr"), 19), (("expr", "au"), 19)]
)
def test_only_the_configured_outputs_exist(outputs: tuple[str, ...], width: int) -> None:
    system = make(*outputs, expressions=7).eval()
    assert {name for name, _ in system.encoder.named_children()} == {"backbone", *outputs}
    frames = torch.randn(4, 1, 3, 64, 64)
    logits = system(SequenceBatch.untimed(frames))
    assert system.encoder.embed_dim == width
    assert system.encoder(frames[:, 0]).shape == (4, width)
    assert tuple(logits) == outputs
    pooled = system.encoder.backbone.pooled(system.encoder.backbone(frames[:, 0]))
    for name in outputs:
        torch.testing.assert_close(logits[name][:, 0], getattr(system.encoder, name)(pooled))


def test_a_loss_reaches_the_backbone_and_its_own_head_only() -> None:
    system = make("au", "expr")
    system(SequenceBatch.untimed(torch.randn(4, 1, 3, 64, 64)))["expr"].square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in system.encoder.au.parameters())
    assert all(p.grad.any() for p in system.encoder.expr.parameters())
    assert next(system.encoder.backbone.parameters()).grad.any()


def test_stages_share_the_backbone_by_name_and_only_the_head_is_new() -> None:
    first, second = make("expr").encoder.state_dict(), make("au").encoder.state_dict()
    shared = first.keys() & second.keys()
    assert {key.split(".")[0] for key in shared} == {"backbone"}
    assert {key.split(".")[0] for key in first.keys() - shared} == {"expr"}
    assert {key.split(".")[0] for key in second.keys() - shared} == {"au"}


@pytest.mark.parametrize("outputs", [(), ("au", "au"), ("valence",)])
def test_invalid_outputs_are_refused(outputs: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="outputs"):
        ExpressionTransferConfig(outputs=outputs)
