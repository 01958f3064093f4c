"""The commands that train the starter models, on a few faces and steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from aupipe import facs
from aupipe.models import checkpoint
from aupipe.models.checkpoint import Card
from aupipe.models.default_models import FOLDERS, SINGLE_NETWORK
from aupipe.models.geometry import GeometryEncoder
from aupipe.models.interfaces import System
from aupipe.storage import Storage
from aupipe.synthesis import crop_training, train_starter
from aupipe.synthesis.distil import distil
from aupipe.synthesis.rendered_crops import CLOSE, Crops, View

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _few(crops: Crops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_starter, "render_crops", lambda rigs, people, seed: crops)
    monkeypatch.setattr(train_starter, "_HELD_OUT_EVERY", 3)
    monkeypatch.setattr(crop_training, "_BATCHES_OF_STATISTICS", 2)


def command(kind: str, out: Path, *start: str, steps: int = 3) -> list[str]:
    return [kind, "--out", str(out), "--start", *start, "--rig", "anny", "--people", "3", "--steps", str(steps)]


@pytest.fixture
def close(tmp_path: Path, starter: str) -> str:
    """Return the folder of a model that reads AUs from one picture."""
    system, card = checkpoint.load(starter)
    config = card.model.model_copy(update={"mirrored": False})
    training = card.training.model_copy(update={"data": "store", "videos": ("a",), "held_out_videos": ("b",)})
    changed = card.model_copy(update={"model": config, "training": training})
    checkpoint.save(Storage(str(tmp_path / "close")), system, changed)
    return str(tmp_path / "close")


def test_an_appearance_model_reads_the_aus_of_the_trained_network(
    tmp_path: Path, starter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[GeometryEncoder, torch.Tensor]] = []
    untrained = train_starter.untrained

    def recorded(path: str, view: View) -> tuple[System, Card]:
        system, card = untrained(path, view)
        assert isinstance(system.encoder, GeometryEncoder)
        kept.append((system.encoder, system.encoder.backbone.au.weight.detach().clone()))
        return system, card

    monkeypatch.setattr(train_starter, "untrained", recorded)
    assert train_starter.main(command("appearance", tmp_path / "new", starter)) == 0
    system, card = checkpoint.load(str(tmp_path / "new"))
    assert (card.model.name, card.input.box_px) == ("expression_transfer", CLOSE.real_box_px)
    assert card.training.command.startswith("python -m aupipe.synthesis.train_starter appearance --out ")
    [(encoder, weight)] = kept
    frames = torch.from_numpy(np.random.default_rng(0).random((2, 3, 80, 80), np.float32))
    with torch.no_grad():
        _, _, logits = encoder.backbone.eval()(frames)
        torch.testing.assert_close(system.eval().encoder(frames), logits, atol=2e-2, rtol=2e-2)  # float16
    width = encoder.backbone.pooled_width
    assert not torch.equal(encoder.backbone.au.weight[:, :width], weight[:, :width])
    assert not encoder.backbone.au.weight[:, width:].any()


def test_points_begin_with_a_geometry_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_starter, "_POSES", 30)
    monkeypatch.setattr(train_starter, "_EPOCHS", 1)
    [start] = [folder for folder in FOLDERS if folder.endswith("geometry")]
    assert train_starter.main(command("points", tmp_path / "new", start, steps=1)) == 0
    (before, old), (after, card) = checkpoint.load(start), checkpoint.load(str(tmp_path / "new"))
    assert (card.model, card.input, card.training.videos) == (old.model, old.input, old.training.videos)
    assert (card.training.seed, card.training.thresholds_from) == (0, "0.5")
    assert isinstance(before.encoder, GeometryEncoder)
    assert isinstance(after.encoder, GeometryEncoder)
    torch.testing.assert_close(after.encoder.backbone.out.weight, before.encoder.backbone.out.weight, atol=1e-3, rtol=0)
    assert not torch.equal(after.encoder.backbone.out.weight, before.encoder.backbone.out.weight)


def test_points_learn_from_distilled_models_alone(
    tmp_path: Path, close: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_starter, "_POSES", 30)
    monkeypatch.setattr(train_starter, "_EPOCHS", 1)
    [geometry], taught = FOLDERS, []
    train_points = train_starter.train_points
    monkeypatch.setattr(
        train_starter, "train_points",
        lambda *given, others, **options: (taught.append(len(others)), train_points(*given, others=others, **options)),
    )  # fmt: skip
    assert train_starter.main(command("points", tmp_path / "new", geometry, SINGLE_NETWORK, steps=1)) == 0
    assert taught == [1]
    _, card = checkpoint.load(str(tmp_path / "new"))
    assert card.model.name == "geometry"
    assert train_starter.main(command("points", tmp_path / "other", geometry, close)) == 2
    assert "the mirror image of a closer square" in capsys.readouterr().err


def test_the_mean_of_models_has_their_mean_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_starter, "_POSES", 30)
    monkeypatch.setattr(train_starter, "_EPOCHS", 1)
    [start] = FOLDERS
    system, card = checkpoint.load(start)
    with torch.no_grad():
        for parameter in system.encoder.parameters():
            parameter.mul_(1.5)
    checkpoint.save(Storage(str(tmp_path / "other")), system, card, half=True)
    mean = command("mean", tmp_path / "new", start, str(tmp_path / "other"))
    assert train_starter.main(mean) == 2
    assert "--steps: 3 (mean trains no network)" in capsys.readouterr().err
    assert train_starter.main(mean[:-2]) == 0
    before, after = (checkpoint.load(path)[0].encoder for path in (start, str(tmp_path / "new")))
    assert isinstance(before, GeometryEncoder)
    assert isinstance(after, GeometryEncoder)
    for name, weights in before.backbone.named_parameters():
        torch.testing.assert_close(after.backbone.get_parameter(name), 1.25 * weights, atol=1e-3, rtol=1e-3)
    assert not torch.equal(after.expert.mean, before.expert.mean)  # of other points


def test_a_distilled_model_starts_as_the_first_teacher_and_reads_the_mirror_image(tmp_path: Path, close: str) -> None:
    assert train_starter.main(command("distil", tmp_path / "new", close, close, steps=2)) == 0
    _, card = checkpoint.load(str(tmp_path / "new"))
    assert (card.input.mirrored, card.input.box_px) == (True, CLOSE.real_box_px)
    assert not card.model.mirrored
    # A training that begins with it must know what it has seen.
    assert (card.training.data, card.training.videos, card.training.held_out_videos) == ("store", ("a",), ("b",))


def test_distillation_approaches_the_mean_of_the_teachers(crops: Crops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_training, "_WARMUP", 1)

    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 12)
            nn.init.zeros_(self.layer.weight)
            nn.init.constant_(self.layer.bias, value)

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(frames.mean(dim=(-2, -1)))
            return logits

    student, teachers = Constant(0.05), [Constant(0.02), Constant(0.06)]
    lines: list[str] = []
    distil(student, teachers, crops, CLOSE, steps=100, seed=0, report=lines.append)
    expected = torch.tensor([0.06 if au in ("AU01", "AU02") else 0.04 for au in facs.AUS])
    torch.testing.assert_close(student.layer.bias, expected, atol=0.006, rtol=0)
    assert [teacher.layer.bias[0].item() for teacher in teachers] == pytest.approx([0.02, 0.06])
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("kind", "models", "reason"),
    [
        ("geometry", 2, "--start: 2 models"),
        ("points", 1, "expression_transfer (allowed: geometry)"),
        ("distil", 2, "reads AUs alone, from one picture"),  # of `starter`, which reads the mirror image too
    ],
)
def test_unusable_starts_are_refused(
    kind: str, models: int, reason: str, tmp_path: Path, starter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_starter.main(command(kind, tmp_path / "new", *[starter] * models)) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_too_few_people_are_refused(tmp_path: Path, starter: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_starter.main([*command("geometry", tmp_path / "new", starter), "--people", "2"]) == 2
    assert "--people: 2 (at least 3" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
