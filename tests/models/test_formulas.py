"""The networks, written a second time from the papers' equations with plain tensor operations."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aupipe.models.build import build
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import SequenceBatch
from aupipe.models.lrp import LRP
from aupipe.models.multilabel_transformer import ImageTokens, LabelDecoder, MultilabelTransformerConfig
from aupipe.models.multimodal import MultimodalConfig, TransformerHead
from aupipe.models.prenorm import PreNormLayer
from aupipe.models.region_relation import RegionRelationConfig
from aupipe.models.transformer import Attention, DecoderLayer, EncoderLayer
from aupipe.models.video_transformer import Spatial, Temporal, VideoTransformerConfig

pytestmark = pytest.mark.unit

EPS = 1e-6


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def scattered(module: nn.Module) -> nn.Module:
    """Return the module in eval mode with weights far from those that hide an error, such as norms of scale 1."""
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return module.eval()


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + EPS).sqrt() * layer.weight + layer.bias


def attend(queries: Tensor, keys: Tensor, layer: Attention, hidden: Tensor | None = None) -> Tensor:
    """Attention head by head; `hidden` (B, K) are keys that no query attends to."""
    q, k, v = layer.query(queries), layer.key(keys), layer.value(keys)
    width = q.shape[-1] // layer.heads
    mixed = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        scores = torch.einsum("bqd,bkd->bqk", q[..., part], k[..., part]) / width**0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None], -torch.inf)
        mixed.append(torch.einsum("bqk,bkd->bqd", scores.softmax(-1), v[..., part]))
    return layer.output(torch.cat(mixed, -1))


def mlp(x: Tensor, layer: nn.Module) -> Tensor:
    return layer.outer(functional.gelu(layer.inner(x)))


def decoded(labels: Tensor, image: Tensor, layer: DecoderLayer) -> Tensor:
    """Tallec et al., eq. 5-7: tokens among themselves, then over the image, then the MLP."""
    own, cross = layer.self_attention, layer.cross_attention
    labels = norm(labels + attend(labels, labels, own.attention), own.norm)
    if not isinstance(layer.self_mlp, nn.Identity):  # the authors' code
        labels = norm(labels + mlp(labels, layer.self_mlp.mlp), layer.self_mlp.norm)
    labels = norm(labels + attend(labels, image, cross.attention), cross.norm)
    return norm(labels + mlp(labels, layer.mlp.mlp), layer.mlp.norm)


def encoded(tokens: Tensor, layer: EncoderLayer) -> Tensor:
    own = layer.self_attention
    tokens = norm(tokens + attend(tokens, tokens, own.attention), own.norm)
    return norm(tokens + mlp(tokens, layer.mlp.mlp), layer.mlp.norm)


@pytest.mark.parametrize("two_mlps", [False, True])
def test_a_decoder_layer_is_equations_5_to_7(two_mlps: bool) -> None:
    layer = scattered(DecoderLayer(width=16, heads=4, hidden=24, dropout=0.1, two_mlps=two_mlps))
    labels, image = torch.randn(2, 12, 16), torch.randn(2, 9, 16)
    torch.testing.assert_close(layer(labels, image)[0], decoded(labels, image, layer))


@pytest.mark.parametrize("style", ["paper", "authors"])
def test_image_tokens_have_positions_and_labels_one_output_layer(style: str) -> None:
    config = MultilabelTransformerConfig(width=16, heads=4, mlp_width=24, decoder_layers=2, decoder_style=style)
    image, decoder = scattered(ImageTokens(config=config, channels=6, tokens=9)), scattered(LabelDecoder(config=config))
    features = torch.randn(2, 6, 3, 3)
    tokens = torch.stack([image.project(features)[:, :, n // 3, n % 3] + image.position[n] for n in range(9)], dim=1)
    expected = encoded(tokens, image.layer)
    torch.testing.assert_close(image(features), expected)
    labels = decoder.labels.expand(2, -1, -1)
    for layer in decoder.layers:
        labels = decoded(labels, expected, layer)
    torch.testing.assert_close(decoder(expected)[0], (labels @ decoder.predict.weight[0]) + decoder.predict.bias)


def vit(tokens: Tensor, layer: PreNormLayer) -> Tensor:
    y = norm(tokens, layer.attention_norm)
    q, k, v = layer.qkv(y).chunk(3, -1)
    width, mixed = q.shape[-1] // layer.heads, []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        mixed.append((q[..., part] @ k[..., part].mT / width**0.5).softmax(-1) @ v[..., part])
    u = tokens + layer.output[0](torch.cat(mixed, -1))
    return u + mlp(norm(u, layer.mlp_norm), layer.mlp)


def test_the_factorized_encoder_has_positions_cls_tokens_and_a_last_norm() -> None:
    config = VideoTransformerConfig(
        width=16, heads=4, mlp_width=24, spatial_layers=2, temporal_layers=2, clip_frames=8, head="with_cls"
    )
    spatial = scattered(Spatial(config=config, tokens=4, channels=16))
    temporal = scattered(Temporal(config=config, fan_in=16))
    tokens = torch.randn(5, 4, 16)
    x = torch.cat([spatial.cls.expand(5, 1, -1), tokens + spatial.position], dim=1)
    for layer in spatial.layers:
        x = vit(x, layer)
    torch.testing.assert_close(spatial(tokens), norm(x[:, 0], spatial.norm))

    frames = torch.randn(2, 6, 16)
    x = torch.cat([temporal.cls.expand(2, 1, -1), frames + temporal.position[:6]], dim=1)
    for layer in temporal.layers:
        x = vit(x, layer)
    clip, each = temporal(frames, torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(clip, norm(x[:, 0], temporal.norm))
    torch.testing.assert_close(each, norm(x[:, 1:], temporal.norm))


def test_logits_of_a_frame_read_its_vector_and_then_that_of_the_clip() -> None:
    config = {"backbone": "iresnet_quick", "width": 16, "heads": 4, "mlp_width": 24, "clip_frames": 4,
              "spatial_layers": 1, "temporal_layers": 1}  # fmt: skip
    head = scattered(build(VideoTransformerConfig(**config), InputSpec(size_px=32)).head)
    batch = SequenceBatch.untimed(torch.randn(2, 4, 4 * 128))
    frames = head.spatial(batch.features.flatten(0, 1).unflatten(-1, (4, 128))).unflatten(0, (2, 4))
    clip, each = head.temporal(frames, batch.mask)
    weight = head.predict.weight
    expected = each @ weight[:, :16].T + (clip @ weight[:, 16:].T)[:, None] + head.predict.bias
    torch.testing.assert_close(head(batch)["au"], expected)


def test_the_multimodal_sequence_head_is_one_post_norm_layer_with_positions() -> None:
    config = MultimodalConfig.model_validate({
        "audio": {"width": 8},
        "sequence": {"frames": 5, "heads": 2, "head_width": 4, "mlp_width": 24, "hidden": 10},
    })  # fmt: skip
    head = scattered(TransformerHead(config=config, width=8))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    batch = SequenceBatch(
        torch.randn(2, 5, 8), mask, torch.zeros(2, 5).double(), torch.randn(2, 64, 40),
        torch.tensor([[3, 9, 15, 21, 27], [0, 7, -1, 20, 39]]),
    )  # fmt: skip
    heard = head.tdnn(batch.mel).transpose(1, 2)
    audio = torch.stack([
        torch.stack([heard[b, c] if c >= 0 else torch.zeros(8) for c in row]) for b, row in enumerate(batch.column)
    ])  # fmt: skip
    place, rate = torch.arange(5)[:, None], 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    position = torch.zeros(5, 16)
    position[:, 0::2], position[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
    x = norm(torch.cat([batch.features, audio], -1) + position, head.norm)
    x = norm(x + attend(x, x, head.attention, ~mask), head.attention_norm)
    x = norm(x + head.mlp[2](head.mlp[0](x).relu()), head.mlp_norm)
    hidden = head.hidden[1](head.hidden[0](x).flatten(0, 1)).relu().unflatten(0, (2, 5))
    for name, values in head(batch).items():
        torch.testing.assert_close(values, head.sequence[name](hidden))


def test_a_lanet_has_a_relu_between_its_convolutions() -> None:
    lrp = scattered(LRP(channels=8, branches=2, reduction=2))
    features = torch.randn(3, 8, 5, 5)
    maps = []
    for branch in lrp.branches:
        inner = torch.einsum("oc,bchw->bohw", branch[0].weight[..., 0, 0], features) + branch[0].bias[:, None, None]
        outer = torch.einsum("c,bchw->bhw", branch[2].weight[0, :, 0, 0], inner.clamp(min=0)) + branch[2].bias
        maps.append(outer)
    torch.testing.assert_close(lrp.attention(features)[:, 0], torch.stack(maps).amax(0).sigmoid())


def test_the_fusion_weight_is_that_of_the_au_branch() -> None:
    encoders = {}
    for weight in (0.0, 0.8, 1.0):
        torch.manual_seed(3)
        config = RegionRelationConfig(
            backbone="iresnet_quick", fusion="fixed", fixed_weight=weight, reduction=8, branches=2
        )
        encoders[weight] = build(config, InputSpec(size_px=32)).encoder.eval()
    frames = torch.randn(2, 3, 32, 32)
    one = encoders[1.0]
    _, related = one.arl(one.lrp(one.backbone(frames)))
    torch.testing.assert_close(one(frames), related)
    torch.testing.assert_close(encoders[0.8](frames), 0.8 * related + 0.2 * encoders[0.0](frames))
    assert (encoders[0.0](frames) - related).abs().max() > 1e-3
