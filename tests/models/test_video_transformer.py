from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from aupipe.errors import ConfigError
from aupipe.models.build import build
from aupipe.models.configs import VideoTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import SequenceBatch, System
from aupipe.training import optim
from aupipe.training.optim import Milestones, OptimizerConfig, ParameterGroup

pytestmark = pytest.mark.unit

FRAMES = 6
PROMPTS = ("head.spatial.layers.prompts", "head.temporal.layers.prompts")


def system(*, size_px: int = 32, **settings: Any) -> System:
    config = {
        "backbone": "iresnet_quick", "width": 32, "heads": 4, "mlp_width": 48, "spatial_layers": 1,
        "temporal_layers": 2, "clip_frames": 8, "init_std": 0.1,
    } | settings  # fmt: skip
    torch.manual_seed(0)
    return build(VideoTransformerConfig.model_validate(config), InputSpec(size_px=size_px)).eval()


def clip(frames: int = FRAMES) -> SequenceBatch:
    torch.manual_seed(1)
    return SequenceBatch.untimed(torch.randn(2, frames, 3, 32, 32))


def test_paper_size() -> None:
    torch.manual_seed(0)
    model = build(VideoTransformerConfig(prompts={}), InputSpec(size_px=112)).eval()
    layers = [*model.head.spatial.layers, *model.head.temporal.layers]
    assert sum(p.numel() for p in model.encoder.backbone.parameters()) == 3_903_144
    assert model.encoder.backbone.grid == (4, 4)
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == 18_631_360
    assert sum(p.numel() for name, p in model.named_parameters() if name in PROMPTS) == 35_200
    assert (model.encoder.embed_dim, model.head.window_length) == (4 * 440, 256)
    linear = model.head.temporal.layers[0].qkv
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert linear.bias.abs().max() == 0
    with torch.inference_mode():
        few = model.encoder(torch.randn(2, 3, 112, 112))
        clip = few.repeat(1, 128, 1).view(1, 256, 1760)
        out = model.head(SequenceBatch.untimed(clip))
    assert out["au"].shape == (1, 256, 12)


@pytest.mark.parametrize("frames", [1, 5, 8, 20])
@pytest.mark.parametrize(
    "settings", [{}, {"head": "frame_only"}, {"token_grid": (2, 1)}, {"token_grid": (1, 1), "spatial_layers": 0}]
)
def test_any_form_and_length_gives_one_prediction_per_frame(settings: dict[str, Any], frames: int) -> None:
    out = system(**settings)(clip(frames))["au"]
    assert out.shape == (2, frames, 12)
    assert out.isfinite().all()


def test_positions_of_shorter_clips_are_the_first_and_of_longer_ones_between() -> None:
    temporal = system().head.temporal
    assert torch.equal(temporal.positions(3), temporal.position[:3])
    longer = temporal.positions(15)
    torch.testing.assert_close(longer[::2], temporal.position)
    torch.testing.assert_close(longer[1], temporal.position[:2].mean(dim=0))


def test_tokens_are_averages_of_the_map_in_raster_order() -> None:
    model = system(size_px=64, token_grid=(2, 1))
    frames = torch.randn(2, 3, 64, 64)
    features, tokens = model.encoder.backbone(frames), model.encoder(frames).unflatten(-1, (2, -1))
    assert features.shape[-2:] == (4, 4)
    torch.testing.assert_close(tokens[:, 0], features[:, :, :2].mean(dim=(2, 3)))
    torch.testing.assert_close(tokens[:, 1], features[:, :, 2:].mean(dim=(2, 3)))


def test_frames_are_independent_in_the_spatial_module_and_mix_in_the_temporal_one() -> None:
    model, batch = system(head="frame_only"), clip()
    frames, other = batch.features, batch.features.clone()
    other[:, 2] = 0
    tokens, changed = (model.encoder(x.flatten(0, 1)).unflatten(-1, (4, -1)) for x in (frames, other))
    moved = (model.head.spatial(tokens) != model.head.spatial(changed)).any(dim=-1).unflatten(0, (2, FRAMES))
    assert moved.tolist() == [[False, False, True, False, False, False]] * 2
    moved = (model(batch)["au"] - model(replace(batch, features=other))["au"]).abs().amax(dim=-1)
    assert (moved > 1e-6).all()


def test_padding_changes_no_real_frame() -> None:
    model, batch = system(prompts={"length": 2}), clip()
    frames, mask = batch.features, batch.mask
    mask[1, 4:] = False
    out = model(batch)["au"]
    frames[1, 4:] = 9
    assert torch.equal(model(batch)["au"][mask], out[mask])
    alone = model(SequenceBatch.untimed(frames[1:, :4]))["au"]
    torch.testing.assert_close(alone[0], out[1, :4], atol=1e-5, rtol=0)


def test_the_cut_moves_names_and_nothing_else() -> None:
    early, late = system(), system(cut="spatial")
    inner = {name.partition(".")[2]: tensor for name, tensor in early.state_dict().items()}
    assert set(inner) == {name.partition(".")[2] for name in late.state_dict()}
    late.load_state_dict({name: inner[name.partition(".")[2]] for name in late.state_dict()})
    assert (early.encoder.embed_dim, late.encoder.embed_dim) == (4 * 128, 32)
    torch.testing.assert_close(late(clip())["au"], early(clip())["au"])


def test_prompts_of_length_0_change_nothing_and_their_order_does_not_matter() -> None:
    plain, none, some = system(), system(prompts={"length": 0}), system(prompts={"length": 3})
    assert not some.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    none.load_state_dict(plain.state_dict())
    expected = plain(clip())["au"]
    assert torch.equal(none(clip())["au"], expected)
    before = some(clip())["au"]
    assert not torch.allclose(before, expected, atol=1e-4)
    for name in PROMPTS:
        parameter = some.get_parameter(name)
        parameter.data = parameter.data.flip(1)
    torch.testing.assert_close(some(clip())["au"], before, atol=1e-5, rtol=0)


def test_training_prompts_changes_nothing_else() -> None:
    model = system(prompts={"length": 3, "dropout": 0})
    group = ParameterGroup(parameters=PROMPTS, schedule=Milestones(kind="milestones", lr=1), weight_decay=1e-4)
    optimizer = optim.build(model, OptimizerConfig(kind="sgd", groups=(group,)))
    for state in optimizer.param_groups:
        state["lr"] = 1.0
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * 3 * 32
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optim.train_mode(model)
    assert not any(layer.training for layer in model.head.temporal.layers)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        model(clip())["au"].square().mean().backward()
        for name in PROMPTS:
            assert (model.get_parameter(name).grad.abs().amax(dim=-1) > 0).all(), "every prompt learns"
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in PROMPTS), name


def test_invalid_configurations_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        VideoTransformerConfig(heads=7)
    with pytest.raises(ValidationError, match="cut=cnn"):
        VideoTransformerConfig(cut="spatial", prompts={})
    assert VideoTransformerConfig(cut="spatial", prompts={"spatial": False}).prompts is not None
    with pytest.raises(ConfigError, match="token_grid"):
        system(token_grid=(3, 3))
