import numpy as np
import pytest
import torch

from aupipe.data.augment import AugmentConfig, augment

pytestmark = pytest.mark.unit

EVERY_KIND: dict[str, object] = {
    "flip": True, "brightness": 0.1, "gain": 0.3, "contrast": 0.1, "saturation": 0.3, "hue_turns": 0.3,
    "channel_drop": 0.3,
    "rotation_turns": 0.1, "zoom": 0.1, "shift": 0.05, "smallest_crop": 0.6, "mixup_alpha": 0.4,
    "label_smoothing": 0.1, "gamma": 0.5, "gray": 0.3, "shade": 0.4, "low_resolution": 0.5, "noise": 0.1,
    "erase": 0.5, "filter": 0.5,
}  # fmt: skip


def run(images: torch.Tensor, targets: torch.Tensor, seed: int = 0, **settings: object) -> tuple:
    """As clips of one frame."""
    generator = torch.Generator().manual_seed(seed)
    out, labels = augment(images[:, None], targets[:, None], AugmentConfig(**settings), generator)
    return out[:, 0], labels[:, 0]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(64, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.randint(-1, 2, (64, 12), generator=torch.Generator().manual_seed(2)).float()


def test_the_default_changes_nothing(images: torch.Tensor, targets: torch.Tensor) -> None:
    out, labels = run(images, targets)
    assert torch.equal(out, images)
    assert torch.equal(labels, targets)


def test_output_is_deterministic_for_a_seed(images: torch.Tensor, targets: torch.Tensor) -> None:
    torch.manual_seed(5)
    first = run(images, targets, **EVERY_KIND)
    torch.manual_seed(6)  # the global generator plays no part
    again, other = run(images, targets, **EVERY_KIND), run(images, targets, seed=1, **EVERY_KIND)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].min() >= 0
    assert first[0].max() <= 1


def test_the_global_generator_is_not_touched(
    images: torch.Tensor, targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread augments the next batch while dropout of this one draws from the global generator."""

    def touched(*_: object) -> None:
        raise AssertionError("the global generator is used")

    state = torch.get_rng_state()
    for name in ("manual_seed", "set_rng_state", "get_rng_state", "seed"):
        monkeypatch.setattr(torch, name, touched)
        monkeypatch.setattr(torch.random, name, touched)
    run(images, targets, **EVERY_KIND)
    monkeypatch.undo()
    assert torch.equal(torch.get_rng_state(), state)


def test_flip_mirrors_about_half_of_the_images(images: torch.Tensor, targets: torch.Tensor) -> None:
    out, labels = run(images, targets, flip=True)
    kept = (out - images).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (out - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    assert (kept ^ mirrored).all()
    assert 16 < mirrored.sum() < 48
    assert torch.equal(labels, targets)


def test_channel_drop_blackens_one_channel(images: torch.Tensor, targets: torch.Tensor) -> None:
    out, _ = run(images, targets, channel_drop=1.0)
    black = out.amax((2, 3)) == 0
    assert (black.sum(1) == 1).all()
    assert black.any(0).all()


def test_brightness_and_geometry_stay_in_bounds(images: torch.Tensor, targets: torch.Tensor) -> None:
    gray = torch.full((64, 3, 8, 8), 0.5)
    shift = run(gray, targets, brightness=0.1)[0][:, 0, 0, 0] - 0.5
    assert shift.abs().max() <= 0.1
    assert shift.std() > 0.03
    flat = run(gray, targets, rotation_turns=0.1, zoom=0.1, shift=0.1, smallest_crop=0.6)[0]
    torch.testing.assert_close(flat, gray)  # pixels come only from the image itself


def test_mixup_mixes_labels_as_images_and_keeps_unknown_unknown(images: torch.Tensor) -> None:
    flat = torch.zeros(64, 3, 4, 4)
    flat[32:] = 1
    targets = flat[:, 0, 0, :1].expand(64, 12).clone()
    targets[:, 0] = -1
    out, labels = run(flat, targets, mixup_alpha=0.4)
    torch.testing.assert_close(out[:, 0, 0, 0], labels[:, 1])
    assert ((labels[:, 1] > 0.01) & (labels[:, 1] < 0.99)).any()
    assert (labels[:, 0] == -1).all()


def test_label_smoothing_keeps_unknown_labels(images: torch.Tensor) -> None:
    targets = torch.tensor([[0.0, 1.0, -1.0] * 4])
    _, labels = run(images[:1], targets, label_smoothing=0.1)
    torch.testing.assert_close(labels[0, :3], torch.tensor([0.05, 0.95, -1.0]))


def test_all_frames_of_a_clip_are_changed_alike(images: torch.Tensor) -> None:
    clips = images[:8, None].expand(-1, 5, -1, -1, -1).contiguous()
    settings = {
        "flip": True, "brightness": 0.2, "gain": 0.3, "contrast": 0.2, "saturation": 0.3, "hue_turns": 0.2,
        "channel_drop": 0.5,
        "rotation_turns": 0.1, "zoom": 0.2, "shift": 0.1, "smallest_crop": 0.6, "mixup_alpha": 0.4,
    }  # fmt: skip
    out, _ = augment(clips, torch.zeros(8, 5, 12), AugmentConfig(**settings), torch.Generator().manual_seed(0))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert (out[:, 0] - clips[:, 0]).abs().amax((1, 2, 3)).min() > 0.01  # and each is changed


def test_colors_turn_about_gray(images: torch.Tensor, targets: torch.Tensor) -> None:
    gray = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1) * 0.5 + 0.25
    for kind in ("hue_turns", "saturation"):
        torch.testing.assert_close(run(gray, targets, **{kind: 0.3})[0], gray)
    middle = images * 0.2 + 0.4  # nothing is cut off at 0 or 1
    turned = run(middle, targets, hue_turns=0.3)[0]
    torch.testing.assert_close(turned.mean(dim=1), middle.mean(dim=1))
    assert (turned - middle).abs().max() > 0.05


def test_crop_shows_a_part_of_the_image() -> None:
    ramp = torch.linspace(0, 1, 64).expand(256, 3, 64, 64).contiguous()
    out, _ = run(ramp, torch.zeros(256, 12), smallest_crop=0.5)
    wide = out[:, 0, 0, -1] - out[:, 0, 0, 0]
    assert wide.min() > 0.5 * 3 / 4
    assert wide.max() <= 1
    assert wide.std() > 0.05


def test_gray_removes_all_color(images: torch.Tensor, targets: torch.Tensor) -> None:
    out, _ = run(images, targets, gray=1.0)
    assert torch.allclose(out, out[:, :1].expand_as(out))
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    assert torch.allclose(out[:, 0], (images * luma).sum(1), atol=1e-5)


def test_shade_falls_off_across_a_flat_image(targets: torch.Tensor) -> None:
    out, _ = run(torch.full((64, 3, 24, 24), 0.4), targets, shade=0.5)
    assert torch.allclose(out.mean((2, 3)), torch.tensor(0.4), atol=1e-3)  # no brighter as a whole
    assert out.amax((1, 2, 3)).max() > 0.55
    corners = out[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.allclose(corners[:, 0] + corners[:, 3], corners[:, 1] + corners[:, 2], atol=1e-5)  # a plane


def test_low_resolution_removes_detail_and_keeps_the_mean(images: torch.Tensor, targets: torch.Tensor) -> None:
    out, _ = run(images, targets, low_resolution=1.0)
    assert (out.std((1, 2, 3)) < 0.9 * images.std((1, 2, 3))).all()
    assert torch.allclose(out.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.02)
    kept, _ = run(images, targets, low_resolution=0.5)
    untouched = (kept == images).flatten(1).all(1)
    assert 16 < untouched.sum() < 48


def test_noise_differs_from_image_to_image(targets: torch.Tensor) -> None:
    flat = torch.full((64, 3, 24, 24), 0.5)
    out, _ = run(flat, targets, noise=0.1)
    spread = out.std((1, 2, 3))
    assert spread.min() < 0.02
    assert 0.08 < spread.max() < 0.12


def test_erase_paints_one_rectangle(images: torch.Tensor, targets: torch.Tensor) -> None:
    out, _ = run(images, targets, erase=1.0)
    changed = (out != images).any(1)
    for mask, picture in zip(changed, out, strict=True):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert mask.sum() == len(rows) * len(columns) > 0
        assert len(rows) == rows.max() - rows.min() + 1 <= 11
        assert (picture[:, mask] == picture[:, mask][:, :1]).all()


def test_a_random_filter_changes_textures_and_keeps_brightness(images: torch.Tensor, targets: torch.Tensor) -> None:
    dim = images * 0.2 + 0.4  # nothing is cut off at 0 or 1
    out, _ = run(dim, targets, filter=0.5)
    changed = (out - dim).abs().amax((1, 2, 3)) > 1e-3
    assert 16 < changed.sum() < 48
    torch.testing.assert_close(out.mean((2, 3)), dim.mean((2, 3)), atol=0.02, rtol=0)
    same = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(out[changed], dim[changed], strict=True)]
    assert min(same) < 0.5  # some are hardly the same texture


def test_a_random_filter_keeps_shapes_in_place(targets: torch.Tensor) -> None:
    half = torch.zeros(64, 3, 24, 24)
    half[..., 12:] = 0.8
    out, _ = run(half + 0.1, targets, filter=1.0)
    edges = (out[..., 1:] - out[..., :-1]).abs().amax((1, 2))
    assert (edges[:, :8] < 0.01).all()
    assert (edges[:, 15:] < 0.01).all()
    assert (edges[:, 9:14].amax(1) > 0.01).float().mean() > 0.9


def test_contrast_differs_from_clip_to_clip_about_the_mean() -> None:
    images = torch.rand(200, 3, 8, 8) * 0.2 + 0.4
    changed, _ = run(images, torch.zeros(200, 12), contrast=0.25)
    spread = changed.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert 0.75 <= spread.min() < 0.8
    assert 1.2 < spread.max() <= 1.2501
    torch.testing.assert_close(changed.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)))


def test_rotation_turns_a_bar_by_up_to_its_amount() -> None:
    bar = torch.zeros(200, 3, 65, 65)
    bar[..., 31:34, :] = 1
    turned, _ = run(bar, torch.zeros(200, 12), rotation_turns=0.1)
    place = torch.arange(65.0) - 32
    y, x = torch.meshgrid(place, place, indexing="ij")
    weight = turned[:, 0] * (x**2 + y**2 < 30**2)
    degrees = torch.rad2deg(torch.atan2(2 * (weight * x * y).sum((1, 2)), (weight * (x**2 - y**2)).sum((1, 2))) / 2)
    assert 30 < degrees.max() < 37  # 0.1 turns are 36 degrees
    assert -37 < degrees.min() < -30
    assert abs(degrees.mean()) < 5
