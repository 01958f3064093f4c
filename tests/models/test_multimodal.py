from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from aupipe.models.build import build
from aupipe.models.configs import MultimodalConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import SequenceBatch, System, on_frames
from aupipe.models.multimodal import sinusoid
from aupipe.training import optim
from aupipe.training.optim import Milestones, OptimizerConfig, ParameterGroup

pytestmark = pytest.mark.unit

FRAMES, COLUMNS = 6, 60
SMALL = {
    "backbone": "iresnet_quick", "audio": {"width": 16},
    "sequence": {"frames": 8, "heads": 2, "head_width": 8, "mlp_width": 32, "hidden": 16},
}  # fmt: skip


def system(**settings: Any) -> System:
    torch.manual_seed(0)
    return build(MultimodalConfig.model_validate(SMALL | settings), InputSpec(size_px=32)).eval()


def inputs() -> SequenceBatch:
    torch.manual_seed(1)
    return SequenceBatch(
        features=torch.randn(2, FRAMES, 3, 32, 32), mask=torch.ones(2, FRAMES, dtype=torch.bool),
        time_s=torch.arange(FRAMES).double().expand(2, -1) / 30, mel=torch.randn(2, 64, COLUMNS),
        column=(5 + 7 * torch.arange(FRAMES)).expand(2, -1).clone(),
    )  # fmt: skip


def test_paper_sizes() -> None:
    with torch.device("meta"):
        model = build(MultimodalConfig(), InputSpec())
        visual = build(MultimodalConfig(stage="visual", backbone="ir_se50"), InputSpec())
        audio = build(MultimodalConfig(stage="audio", outputs=("au",)), InputSpec())
        deaf = build(MultimodalConfig(stage="audio", outputs=("au",), uses_video=False), InputSpec())
    sizes = {name: tuple(p.shape) for name, p in model.head.named_parameters()}
    assert sum(p.numel() for p in model.encoder.parameters()) == 65_155_648  # without the fixed scale of 512
    assert sum(p.numel() for p in model.head.tdnn.parameters()) == 2_268_672
    assert sizes["attention.query.weight"] == (512, 1024)
    assert not any("attention." in name and "bias" in name for name in sizes)
    assert sizes["mlp.0.weight"] == (2048, 1024)
    assert sizes["hidden.0.weight"] == (512, 1024)
    assert (sizes["sequence.au.weight"], sizes["sequence.expr.weight"]) == ((12, 512), (7, 512))
    assert (model.head.window_length, model.encoder.embed_dim, visual.encoder.embed_dim) == (30, 512, 512)
    assert [tuple(p.shape) for p in visual.head.parameters()] == [(12, 512), (12,), (7, 512), (7,)]
    assert audio.head.joint["au"].weight.shape == (12, 1024)
    assert deaf.head.joint["au"].weight.shape == (12, 512)


@pytest.mark.parametrize("stage", ["visual", "audio", "sequence"])
def test_every_step_predicts_both_tasks_per_frame(stage: str) -> None:
    out = system(stage=stage)(inputs())
    assert {name: tuple(values.shape) for name, values in out.items()} == {
        "au": (2, FRAMES, 12),
        "expr": (2, FRAMES, 7),
    }
    assert set(system(stage=stage, outputs=["au"])(inputs())) == {"au"}


@pytest.mark.parametrize("stage", ["audio", "sequence"])
def test_audio_is_read_at_a_frames_column_and_can_be_missing(stage: str) -> None:
    model, given = system(stage=stage), inputs()
    before = model(given)["au"]
    assert not torch.allclose(model(replace(given, mel=torch.zeros_like(given.mel)))["au"], before, atol=1e-5)
    silent = model(replace(given, mel=None, column=None))["au"]
    assert silent.isfinite().all()
    nowhere = torch.full_like(given.column, -1)
    assert torch.equal(model(replace(given, column=nowhere))["au"], silent)
    assert torch.equal(model(replace(given, mel=torch.zeros(2, 64, 0), column=nowhere))["au"], silent)


def test_a_frame_depends_only_on_audio_near_it() -> None:
    model, given = system(stage="audio"), inputs()
    before = model(given)["au"]
    given.mel[:, :, 5 + 7 * 3] += 1
    moved = (model(given)["au"] != before).any(dim=-1)[0]
    assert moved.tolist() == [False, False, True, True, True, False]  # 7 columns between frames, receptive field of ±7
    given = inputs()
    given.column[0, 2] = -1
    moved = (model(given)["au"] != before).any(dim=-1)
    assert moved.nonzero().tolist() == [[0, 2]]


def test_audio_of_a_window_can_be_stretched_over_its_frames_as_in_the_authors_code() -> None:
    model, given = system(stage="audio", audio={"width": 16, "align": "interp"}), inputs()
    assert set(model.state_dict()) == set(system(stage="audio").state_dict())
    before = model(given)["au"]
    first, last = int(given.column[0, 0]), int(given.column[0, -1])
    outside = given.mel.clone()
    outside[..., :first] = 9
    outside[..., last + 1 :] = 9
    assert torch.equal(model(replace(given, mel=outside))["au"], before)
    # Only the first and the last frame count: the others are taken as evenly spaced.
    uneven = given.column.clone()
    uneven[:, 1:-1] = first
    assert torch.equal(model(replace(given, column=uneven))["au"], before)
    # 36 columns become 100, of which frame s takes number 100 · s // 6; the network is applied to the stretched ones.
    columns = first + (last + 1 - first) * torch.arange(100) // 100
    vectors = model.head.tdnn(given.mel[:, :, columns]).transpose(1, 2)
    expected = vectors[:, [100 * s // FRAMES for s in range(FRAMES)]]
    assert torch.allclose(model.head.audio_features(replace(given, features=torch.zeros(2, FRAMES, 1))), expected)
    short = replace(given, mask=torch.arange(FRAMES).expand(2, -1) < 3)
    short.column[:, 3:] = COLUMNS - 1
    parts = {name: getattr(short, name)[:, :3] for name in ("features", "mask", "time_s", "column")}
    cut = replace(short, **parts)
    assert torch.allclose(model(short)["au"][:, :3], model(cut)["au"], atol=1e-6)


def test_the_audio_only_step_ignores_the_video() -> None:
    model, given = system(stage="audio", uses_video=False), inputs()
    before = model(given)["au"]
    assert torch.equal(model(replace(given, features=torch.zeros_like(given.features)))["au"], before)
    assert not torch.allclose(model(replace(given, mel=-given.mel))["au"], before, atol=1e-5)


def test_the_sequence_step_uses_other_frames_but_not_padding() -> None:
    model, given = system(), inputs()
    given.mask[1, 4:] = False
    before = model(given)["au"]
    padded = given.features.clone()
    padded[1, 4:] = 9
    assert torch.equal(model(replace(given, features=padded))["au"][given.mask], before[given.mask])
    other = given.features.clone()
    other[0, 1] = 9
    moved = (model(replace(given, features=other))["au"] - before).abs().amax(dim=-1)
    assert (moved[0] > 1e-7).all()
    assert (moved[1] == 0).all()


def test_weights_are_passed_between_steps_by_name() -> None:
    steps = [set(system(stage=stage).state_dict()) for stage in ("visual", "audio", "sequence")]
    encoder = {name for name in steps[0] if name.startswith("encoder.")}
    tdnn = {name for name in steps[1] if name.startswith("head.tdnn.")}
    assert steps[0] & steps[1] == steps[0] & steps[2] == encoder
    assert steps[1] & steps[2] == encoder | tdnn


def test_later_steps_keep_the_visual_model_bit_identical() -> None:
    model = system(outputs=["au"])
    group = ParameterGroup(parameters=("head",), schedule=Milestones(kind="milestones", lr=0.1), weight_decay=5e-5)
    optimizer = optim.build(model, OptimizerConfig(kind="sgd", groups=(group,)))
    for state in optimizer.param_groups:
        state["lr"] = 0.1
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        optim.train_mode(model)
        optimizer.zero_grad(set_to_none=True)
        model(inputs())["au"].square().mean().backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("encoder."), name


def test_training_one_task_does_not_change_the_head_of_the_other() -> None:
    model = system(stage="visual").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for task, other in (("expr", "au"), ("au", "expr"), ("expr", "au")):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimizer.zero_grad(set_to_none=True)
        model(SequenceBatch.untimed(torch.randn(4, 1, 3, 32, 32)))[task].square().mean().backward()
        optimizer.step()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert {f"head.visual.{task}.weight", "encoder.backbone.network.conv1.weight"} <= moved
        assert not any(name.startswith(f"head.visual.{other}.") for name in moved)


def test_a_model_without_outputs_has_no_head() -> None:
    model = system(stage="visual", outputs=[])
    assert model(inputs()) == {}
    assert not list(model.head.parameters())
    for wrong in ({"outputs": []}, {"outputs": ["au", "au"]}, {"sees": False}):
        with pytest.raises(ValidationError):
            system(**wrong)


def test_positions_against_the_formula() -> None:
    table = sinusoid(30, 6)
    assert table.shape == (30, 6)
    angle = torch.tensor(11 / 10000 ** (2 / 6))
    torch.testing.assert_close(table[11, 2:4], torch.stack([angle.sin(), angle.cos()]))
    assert sinusoid(4, 5).shape == (4, 5)


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_neither_valid_logits_nor_statistics(training: bool) -> None:
    given = inputs()
    given.mask[0, 4:], given.mask[1, 2:] = False, False
    other = replace(given, features=torch.where(given.mask[..., None, None, None], given.features, 7.0))
    found = []
    for batch in (given, other):
        model = system(sequence={**SMALL["sequence"], "dropout": 0}, dropout=0).train(training)
        logits = model(batch)["au"][given.mask]
        logits.sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([logits, *gradients, *model.buffers()])
    assert all(torch.equal(one, another) for one, another in zip(*found, strict=True))


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.tensor([[1, 0, 0], [0, 0, 0]])])
def test_a_module_gets_all_frames_if_there_is_no_padding_or_one_valid_frame(mask: torch.Tensor) -> None:
    frames, norm = torch.randn(2, 3, 5), torch.nn.BatchNorm1d(5)
    plain = torch.nn.BatchNorm1d(5)
    assert torch.equal(on_frames(norm, frames, mask.bool()), plain(frames.flatten(0, 1)).unflatten(0, (2, 3)))
    assert torch.equal(norm.running_var, plain.running_var)
