import pytest
import torch
from torch import nn

from aupipe.errors import ConfigError
from aupipe.models.build import build
from aupipe.models.configs import MultilabelTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import SequenceBatch
from aupipe.models.multilabel_transformer import ImageTokens, LabelDecoder

pytestmark = pytest.mark.unit

PAPER = MultilabelTransformerConfig()
TINY = MultilabelTransformerConfig(backbone="test_resnet", width=16, heads=2, mlp_width=32, dropout=0.1)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_of_the_paper() -> None:
    image = ImageTokens(config=PAPER, channels=2048, tokens=64)
    assert parameters(image.project) + image.position.numel() == 270_464
    assert parameters(image.layer) == 198_272
    assert parameters(LabelDecoder(config=PAPER)) == 530_817
    assert parameters(LabelDecoder(config=PAPER).layers[0]) == 264_576
    authors = LabelDecoder(config=PAPER.model_copy(update={"decoder_style": "authors"}))
    assert parameters(authors.layers[0]) == 396_544
    assert parameters(authors) == 2 * 396_544 + 1_536 + 129


def test_paper_model_has_64_tokens_of_2048_channels() -> None:
    with torch.device("meta"):
        encoder = build(PAPER, InputSpec(size_px=299)).encoder
        tokens = encoder.image(encoder.eval().backbone(torch.zeros(1, 3, 299, 299)))
    assert tokens.shape == (1, 64, 128)
    assert encoder.backbone.grid == (8, 8)
    assert encoder.backbone.channels == 2048
    assert parameters(encoder.backbone) == pytest.approx(21.8e6, rel=0.005)


@pytest.mark.parametrize("style", ["paper", "authors"])
def test_permuting_label_tokens_permutes_logits(style: str) -> None:
    torch.manual_seed(0)
    decoder = LabelDecoder(config=TINY.model_copy(update={"decoder_style": style})).eval()
    image = torch.randn(3, 9, 16)
    before = decoder(image)[0]
    order = torch.randperm(12)
    decoder.labels.data = decoder.labels.data[order]
    torch.testing.assert_close(decoder(image)[0], before[:, order])


def test_image_token_order_matters_only_through_positions() -> None:
    torch.manual_seed(0)
    tokens = ImageTokens(config=TINY, channels=5, tokens=9).eval()
    decoder = LabelDecoder(config=TINY).eval()
    features = torch.randn(2, 5, 3, 3)
    shuffled = features.flatten(2)[..., torch.randperm(9)].unflatten(2, (3, 3))

    def logits(x: torch.Tensor) -> torch.Tensor:
        return decoder(tokens(x))[0]

    tokens.position.data *= 50
    assert (logits(features) - logits(shuffled)).abs().max() > 1e-3
    tokens.position.data.zero_()
    torch.testing.assert_close(logits(features), logits(shuffled))


def test_masked_image_token_does_not_count() -> None:
    torch.manual_seed(0)
    decoder = LabelDecoder(config=TINY).eval()
    image = torch.randn(2, 9, 16)
    mask = torch.zeros(12, 9, dtype=torch.bool)
    mask[:, 4] = True
    other = image.clone()
    other[:, 4] = 7.0
    torch.testing.assert_close(decoder(image, image_mask=mask)[0], decoder(other, image_mask=mask)[0])
    assert torch.isfinite(decoder(image, image_mask=torch.ones(12, 9, dtype=torch.bool))[0]).all()


def test_system_gives_twelve_logits_each_from_its_own_frame() -> None:
    torch.manual_seed(0)
    system = build(TINY, InputSpec(size_px=64)).eval()
    frames = torch.randn(4, 3, 64, 64)
    logits = system(SequenceBatch.untimed(frames[:, None]))["au"]
    assert logits.shape == (4, 1, 12)
    assert torch.equal(system.encoder(frames), logits[:, 0])
    sequence = system(SequenceBatch.untimed(frames[None]))
    assert torch.equal(sequence["au"][0], logits[:, 0])
    changed = frames.clone()
    changed[0] = 0
    torch.testing.assert_close(system.encoder(changed)[1:], logits[1:, 0])


def test_attention_maps_cover_the_face_and_sum_to_one() -> None:
    encoder = build(TINY, InputSpec(size_px=96)).encoder.eval()
    maps = encoder.attention_maps(torch.randn(2, 3, 96, 96))
    assert maps.shape == (2, 12, *encoder.backbone.grid)
    torch.testing.assert_close(maps.sum((-1, -2)), torch.ones(2, 12))


def test_unknown_backbone_and_flat_features_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="resnet9999"):
        build(MultilabelTransformerConfig(backbone="resnet9999"), InputSpec())
    with pytest.raises(ConfigError, match="test_vit"):
        build(MultilabelTransformerConfig(backbone="test_vit"), InputSpec(size_px=160))
