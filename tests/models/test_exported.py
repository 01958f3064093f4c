"""Exported models: the same logits and probabilities as in torch, for any batch; damaged files are refused."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from aupipe import facs
from aupipe.commands.convert import main
from aupipe.errors import CheckpointError
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import checkpoint, default_models, export, inference
from aupipe.models.build import build
from aupipe.models.configs import (
    ExpressionTransferConfig,
    GeometryConfig,
    ImageTransformerConfig,
    MultilabelTransformerConfig,
    RegionRelationConfig,
    SingleFrameConfig,
)
from aupipe.models.exported import ExportedModel
from aupipe.models.inputs import InputSpec
from aupipe.models.torch_model import TorchModel
from aupipe.onnx_session import open_session
from aupipe.storage import Storage
from harness.random_model import save_multimodal

pytestmark = pytest.mark.unit

CROPS = np.random.default_rng(0).integers(0, 256, (17, 112, 112, 3), np.uint8)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ExportedModel, TorchModel]:
    """A model of AUs and expressions with random weights: its folder, and the model in each runtime."""
    folder = str(tmp_path_factory.mktemp("model"))
    model = ExpressionTransferConfig(outputs=("expr", "au"), backbone="iresnet_quick", hidden=(16,), mirrored=True)
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    card = checkpoint.Card(model=model, input=InputSpec(size_px=64, mean=(0.4, 0.5, 0.6)), template=template)
    torch.manual_seed(0)
    system = build(card.model, card.input)
    for module in system.modules():  # Normalization by its initial statistics would do nothing.
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    checkpoint.save(Storage(folder), system.eval(), card)
    assert isinstance(inference.load(folder)[0], TorchModel)
    assert main([folder, "--out", f"{folder}/model.onnx"]) == 0
    exported, card = inference.load(folder)
    assert isinstance(exported, ExportedModel)
    return folder, exported, TorchModel(*checkpoint.load(folder))


def test_both_runtimes_agree(both: tuple[str, ExportedModel, TorchModel]) -> None:
    _, exported, in_torch = both
    assert exported.outputs == in_torch.outputs == {"expr": 8, "au": 12}
    assert exported.embed_dim == in_torch.embed_dim == 20
    logits, expected = (model.encoder(17, "cpu")(CROPS) for model in (exported, in_torch))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    assert np.ptp(logits, axis=0).min() > 0.01  # The crops differ in every logit.
    time_s = np.arange(17) / 25
    probabilities, reference = (model.without_encoder().predict(logits, time_s, overlap=0.5) for model in both[1:])
    assert probabilities.keys() == reference.keys()
    for name, values in probabilities.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, reference[name], atol=1e-6)
    np.testing.assert_allclose(probabilities["expr"].sum(axis=1), 1, atol=1e-6)
    assert exported.predict(logits[:0], time_s[:0], overlap=0.5)["au"].shape == (0, 12)


_LABELS = MultilabelTransformerConfig(backbone="test_resnet", width=32, heads=2, mlp_width=32)
_REGIONS = RegionRelationConfig(backbone="iresnet_quick", fusion_heads=2, fusion_mlp_width=16)


@pytest.mark.parametrize(
    "model",
    [
        _LABELS,
        pytest.param(_LABELS.model_copy(update={"decoder_style": "authors"}), marks=pytest.mark.slow),
        pytest.param(_REGIONS, marks=pytest.mark.slow),
        pytest.param(
            _REGIONS.model_copy(update={"fusion_weight": "per_au", "count_self": False, "output": "per_node"}),
            marks=pytest.mark.slow,
        ),
        pytest.param(_REGIONS.model_copy(update={"fusion": "fixed"}), marks=pytest.mark.slow),
        pytest.param(ImageTransformerConfig(backbone="test_vit", outputs=("au",)), marks=pytest.mark.slow),
        pytest.param(GeometryConfig(), marks=pytest.mark.slow),
    ],
    ids=[
        "labels",
        "labels of the authors",
        "regions",
        "other regions",
        "fixed fusion",
        "image transformer",
        "geometry",
    ],
)
def test_every_single_frame_system_is_exported_for_any_batch(model: SingleFrameConfig) -> None:
    template = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE)
    card = checkpoint.Card(model=model, input=InputSpec(size_px=112), template=template)
    torch.manual_seed(0)
    system, folder = build(card.model, card.input).eval(), Storage(f"memory://{uuid.uuid4().hex}")
    card = checkpoint.save(folder, system, card)
    weights = checkpoint.read(folder.root, checkpoint.WEIGHTS, card.weights_sha256)
    graph, difference = export.checked(system, card, weights)  # for 16 crops
    assert difference < 2e-5
    session = open_session(graph, {checkpoint.WEIGHTS: weights})
    assert [session.run(None, {"crops": CROPS[:count]})[0].shape for count in (1, 3)] == [(1, 12), (3, 12)]


@pytest.mark.slow
def test_a_graph_of_a_fixed_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`len(tensor)` in a forward pass becomes a constant in the graph."""
    card = checkpoint.Card(model=_LABELS, input=InputSpec(size_px=112), template=ARCFACE_TEMPLATE.tolist())
    system = build(card.model, card.input).eval()
    forward = type(system.encoder).forward
    monkeypatch.setattr(type(system.encoder), "forward", lambda self, x: forward(self, x.expand(len(x), -1, -1, -1)))
    with pytest.raises(CheckpointError, match="torch exports multilabel_transformer for batches of 2 only"):
        export.export(system, card, b"")


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
def test_logits_do_not_depend_on_the_batch(both: tuple[str, ExportedModel, TorchModel], count: int) -> None:
    encode = both[1].encoder(17, "cpu")
    np.testing.assert_array_equal(encode(CROPS[:count]), encode(CROPS)[:count])


@pytest.mark.parametrize("folder", default_models.OWN)
def test_bfloat16_is_run_by_torch_near_the_logits_of_float32(folder: str) -> None:
    model, _ = inference.load(folder, "bfloat16")
    full = TorchModel(*checkpoint.load(folder))
    assert isinstance(model, TorchModel)
    logits, expected = (each.encoder(17, "cpu")(CROPS) for each in (model, full))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-expected)), atol=0.02)
    assert not np.array_equal(logits, expected)
    assert model.encoder_parts != full.encoder_parts  # embeddings of the one are not cached as those of the other


@pytest.mark.parametrize("folder", default_models.OWN)
def test_the_models_of_the_package_agree_with_torch(folder: str) -> None:
    exported, card = inference.load(folder)
    assert isinstance(exported, ExportedModel)
    expected = TorchModel(*checkpoint.load(folder)).encoder(17, "cpu")(CROPS)
    np.testing.assert_allclose(exported.encoder(17, "cpu")(CROPS), expected, atol=1e-5)
    assert exported.outputs == {"au": len(facs.AUS)}
    assert card.graph_sha256 in exported.encoder_parts


def test_another_device_uses_torch(both: tuple[str, ExportedModel, TorchModel]) -> None:
    """The device `cpu:0` is another name of torch's CPU."""
    np.testing.assert_array_equal(both[1].encoder(17, "cpu:0")(CROPS), both[2].encoder(17, "cpu")(CROPS))


def test_a_graph_of_another_input_is_refused(both: tuple[str, ExportedModel, TorchModel], tmp_path: Path) -> None:
    """The graph contains the input's scaling, so an edit of the card alone would have no effect on a CPU."""
    copy = tmp_path / "copy"
    shutil.copytree(both[0], copy)
    card = json.loads((copy / "model.json").read_text())
    card["input"]["mirrored"] = not card["input"]["mirrored"]
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"model\.onnx was not made of the model .*fix: python jobs/convert\.py"):
        inference.load(str(copy))
    assert main([str(copy), "--out", str(copy / "model.onnx")]) == 0
    encoded = inference.load(str(copy))[0].encoder(17, "cpu")(CROPS)
    np.testing.assert_allclose(encoded, TorchModel(*checkpoint.load(str(copy))).encoder(17, "cpu")(CROPS), atol=1e-5)


def test_unusable_graphs_are_refused(
    both: tuple[str, ExportedModel, TorchModel], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(both[0], copy)
    (copy / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(CheckpointError, match=r"model\.onnx is not the file that its card was written with"):
        inference.load(str(copy))
    checkpoint.save_graph(Storage(copy), checkpoint.load_card(str(copy)), b"not a graph")
    with pytest.raises(CheckpointError, match=r"model\.onnx: ONNX Runtime cannot run it"):
        inference.load(str(copy))[0].encoder(8, "cpu")
    system, card = checkpoint.load(str(copy))
    assert checkpoint.save(Storage(copy), system, card).graph_sha256 == ""  # A new training has no graph yet.
    assert main([str(copy), "--out", str(tmp_path / "model.onnx")]) == 2
    assert "the graph is part of the checkpoint" in capsys.readouterr().err
    save_multimodal(tmp_path / "temporal")
    assert main([str(tmp_path / "temporal"), "--out", str(tmp_path / "temporal/model.onnx")]) == 2
    assert "looks at several frames" in capsys.readouterr().err
