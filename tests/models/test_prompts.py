import pytest
import timm
import torch
from torch import Tensor, nn

from aupipe.models.configs import PromptConfig
from aupipe.models.prenorm import PreNormLayer
from aupipe.models.prompts import PromptedLayers

pytestmark = pytest.mark.unit

WIDTH, LENGTH, LAYERS = 16, 3, 2


def layers(count: int = LAYERS) -> list[nn.Module]:
    torch.manual_seed(0)
    return [PreNormLayer(width=WIDTH, heads=2, hidden=32, dropout=0.1) for _ in range(count)]


def prompted(length: int = LENGTH, dropout: float = 0.0) -> PromptedLayers:
    config = PromptConfig(length=length, dropout=dropout)
    return PromptedLayers(layers(), config=config, width=WIDTH, fan_in=WIDTH)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(4, 6, WIDTH, generator=torch.Generator().manual_seed(1))


class Blind(nn.Module):
    """A layer that does not attend to the prompt tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Tensor) -> Tensor:
        present = torch.ones(tokens.shape[:2], dtype=torch.bool)
        present[:, 1 : 1 + LENGTH] = False
        return self.layer(tokens, present)


def test_no_prompts_and_masked_prompts_change_nothing(tokens: Tensor) -> None:
    plain = nn.Sequential(*layers()).eval()(tokens)
    assert torch.equal(prompted(length=0).eval()(tokens), plain)
    blind = PromptedLayers(
        [Blind(layer) for layer in layers()], config=PromptConfig(length=LENGTH), width=WIDTH, fan_in=WIDTH
    )
    torch.testing.assert_close(blind.eval()(tokens), plain, atol=1e-5, rtol=0)
    assert not torch.allclose(prompted().eval()(tokens), plain, atol=1e-3)


def test_prompts_follow_the_first_token_and_are_dropped_after_every_layer(tokens: Tensor) -> None:
    class Note(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return 2 * x

    seen: list[Tensor] = []
    module = PromptedLayers([Note(), Note()], config=PromptConfig(length=LENGTH), width=WIDTH, fan_in=WIDTH).eval()
    assert torch.equal(module(tokens), 4 * tokens)
    for number, x in enumerate(seen):
        assert x.shape == (4, 6 + LENGTH, WIDTH)
        assert torch.equal(x[:, 0], 2**number * tokens[:, 0])
        assert torch.equal(x[:, 1 : 1 + LENGTH], module.prompts[number].expand(4, -1, -1)), "no position, no history"
        assert torch.equal(x[:, 1 + LENGTH :], 2**number * tokens[:, 1:])


def test_the_order_of_prompts_does_not_matter(tokens: Tensor) -> None:
    module = prompted().eval()
    before = module(tokens)
    module.prompts.data = module.prompts.data[:, [2, 0, 1]]
    torch.testing.assert_close(module(tokens), before, atol=1e-5, rtol=0)


def test_padding_is_masked_and_prompts_are_not(tokens: Tensor) -> None:
    module = prompted().eval()
    present = torch.tensor([[True, True, True, False, False, False]]).expand(4, -1)
    before = module(tokens, present)[:, :3]
    other = tokens.clone()
    other[:, 3:] = 7
    assert torch.equal(module(other, present)[:, :3], before)
    module.prompts.data *= -1
    assert not torch.allclose(module(tokens, present)[:, :3], before, atol=1e-3)


def test_names_are_those_of_a_sequential_and_prompts_begin_within_their_bound() -> None:
    module = prompted()
    assert set(module.state_dict()) - set(nn.Sequential(*layers()).state_dict()) == {"prompts"}
    assert "prompts" not in prompted(length=0).state_dict()
    wide = PromptedLayers(layers(8), config=PromptConfig(), width=440, fan_in=440)
    assert wide.prompts.numel() == 35_200
    assert wide.prompts.abs().max().item() == pytest.approx(0.0826, abs=1e-4)


def test_only_the_dropout_of_prompts_is_active_over_frozen_layers(tokens: Tensor) -> None:
    module = prompted(dropout=0.5).train()
    for layer in module:
        layer.eval()
    assert not torch.equal(module(tokens), module(tokens))
    module.dropout = 0.0
    assert torch.equal(module(tokens), module(tokens))


def test_it_replaces_the_blocks_of_timm() -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    image = torch.randn(2, 3, 32, 32)
    plain, names = network(image), set(network.state_dict())
    blocks = network.blocks
    network.blocks = PromptedLayers(blocks, config=PromptConfig(length=0), width=64, fan_in=768).eval()
    assert torch.equal(network(image), plain)
    assert set(network.state_dict()) == names
    network.blocks = PromptedLayers(blocks, config=PromptConfig(length=4), width=64, fan_in=768).eval()
    changed = network(image)
    changed.sum().backward()
    assert not torch.allclose(changed, plain, atol=1e-4)
    assert (network.blocks.prompts.grad.abs().sum(dim=-1) > 0).all()
