"""The geometry model: the frontal shape does not depend on the camera, and both kinds of logits are used."""

from __future__ import annotations

import pytest
import torch

from aupipe.models.build import build
from aupipe.models.configs import GeometryConfig
from aupipe.models.geometry import FaceNetwork, Frontal, GeometryEncoder, ShapeExpert
from aupipe.models.inputs import InputSpec

pytestmark = pytest.mark.unit

POINTS = 12
INPUT = InputSpec(box_px=(10, 20, 92), size_px=80)


def turned(shape: torch.Tensor, yaw: float, pitch: float, roll: float) -> torch.Tensor:
    (cy, cp, cr), (sy, sp, sr) = (f(torch.tensor([yaw, pitch, roll])) for f in (torch.cos, torch.sin))
    about_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = torch.tensor([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return shape @ (about_z @ about_x @ about_y).T


@pytest.fixture
def shape() -> torch.Tensor:
    return torch.randn(POINTS, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder() -> GeometryEncoder:
    torch.manual_seed(0)
    encoder = build(GeometryConfig(points=POINTS, hidden=(8,)), INPUT).encoder.eval()
    assert isinstance(encoder, GeometryEncoder)
    encoder.backbone.typical.normal_()
    encoder.expert.frontal.set_shape(torch.randn(POINTS, 3), torch.arange(POINTS) < 8)
    return encoder


def test_pose_scale_and_place_have_no_effect_and_a_movement_stays(shape: torch.Tensor) -> None:
    frontal, rigid = Frontal(POINTS), torch.arange(POINTS) < 8
    frontal.set_shape(shape, rigid)
    moved = shape.clone()
    moved[10, :2] += torch.tensor([0.2, -0.3])
    for pose in ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (-0.4, 0.3, 0.2)):
        seen = 7 * turned(moved, *pose)[None, :, :2] + torch.tensor([50.0, -20.0])
        offsets, found = frontal(seen)
        expected = torch.zeros(POINTS, 2)
        expected[10] = torch.tensor([0.2, -0.3])
        still = torch.arange(POINTS) != 10
        torch.testing.assert_close(offsets[0, still], expected[still], atol=1e-4, rtol=0)
        assert (offsets[0, 10] - expected[10]).norm() < 0.25  # Its depth is taken from the mean shape.
        assert (found.abs().sum() > 0.1) == (pose != (0.0, 0.0, 0.0))


def test_a_face_and_its_mirror_image_have_the_same_logits(shape: torch.Tensor) -> None:
    torch.manual_seed(0)
    expert = ShapeExpert(points=POINTS, hidden=(8,), dropout=0.5).eval()
    partners = torch.arange(POINTS).view(-1, 2).flip(1).flatten()
    expert.mirror.copy_(torch.eye(POINTS)[partners])
    symmetric = (shape + shape[partners] * torch.tensor([-1.0, 1, 1])) / 2
    expert.frontal.set_shape(symmetric, torch.arange(POINTS) < 8)
    points = turned(shape, 0.3, 0.1, 0.1)[None, :, :2]
    torch.testing.assert_close(expert(points), expert(points[:, partners] * torch.tensor([-1.0, 1])))
    assert expert(points).std() > 0


def test_logits_are_the_mean_of_picture_and_points_in_the_share_of_each_au(encoder: GeometryEncoder) -> None:
    encoder.share.copy_(torch.linspace(0, 1, 12))
    frames = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        logits = encoder(frames)
        points, log_deviation, of_picture = encoder.backbone(frames)
        of_points = encoder.expert(points)
    assert points.shape == (2, POINTS, 2)
    assert log_deviation.shape == (2, POINTS)
    torch.testing.assert_close(logits[:, 0], of_picture[:, 0])
    torch.testing.assert_close(logits[:, 11], of_points[:, 11])
    torch.testing.assert_close(logits, of_picture + (of_points - of_picture) * encoder.share)


def test_a_distance_is_added_to_the_logit_of_its_au(encoder: GeometryEncoder) -> None:
    frames = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        before = encoder(frames)
        encoder.expert.distances[3, 2 * 9 + 1], encoder.expert.distances[3, 2 * 10 + 1] = 2.0, -2.0
        encoder.expert.distances_at_rest[3] = 0.5
        added = encoder(frames) - before
        offsets, _ = encoder.expert.frontal(encoder.backbone(frames)[0])
    expected = torch.zeros(2, 12)
    expected[:, 3] = 2 * (offsets[:, 9, 1] - offsets[:, 10, 1]) - 0.5
    torch.testing.assert_close(added, expected, atol=1e-4, rtol=1e-4)


def test_models_of_earlier_versions_have_no_distances(encoder: GeometryEncoder) -> None:
    earlier = {name: value for name, value in encoder.state_dict().items() if "distances" not in name}
    assert len(earlier) == len(encoder.state_dict()) - 2
    encoder.get_buffer("expert.distances").fill_(1)
    encoder.load_state_dict(earlier)
    assert not encoder.get_buffer("expert.distances").any()


def test_a_network_without_training_finds_the_typical_points() -> None:
    network = FaceNetwork(backbone="test_resnet", size_px=40, points=POINTS).eval()
    network.typical.copy_(torch.rand(POINTS, 2) * 40)
    torch.nn.init.zeros_(network.out.weight)
    torch.nn.init.zeros_(network.out.bias)
    points, _, logits = network(torch.rand(3, 3, 40, 40))
    torch.testing.assert_close(points, network.typical.expand(3, -1, -1))
    assert logits.shape == (3, 12)
