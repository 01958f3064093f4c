import pytest
import torch
from pydantic import ValidationError

from aupipe.models.inputs import InputSpec

pytestmark = pytest.mark.unit


def test_values_are_scaled_and_normalized_per_channel() -> None:
    crops = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    crops[..., 0], crops[..., 1], crops[..., 2] = 0, 51, 255
    out = InputSpec(mean=(0.5, 0.2, 0.0), std=(0.5, 0.2, 1.0)).prepare(crops)
    assert out.shape == (1, 3, 112, 112)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[0, :, 3, 4], torch.tensor([-1.0, 0.0, 1.0]))


def test_resize_keeps_range_and_does_not_depend_on_the_batch() -> None:
    crops = torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8)
    for size in (64, 299):
        spec = InputSpec(size_px=size, mean=(0, 0, 0), std=(1, 1, 1))
        out = spec.prepare(crops)
        assert out.shape == (3, 3, size, size)
        assert out.min() >= 0
        assert out.max() <= 1
        assert torch.equal(spec.prepare(crops[1:2])[0], out[1])


def test_axes_are_not_mixed_up() -> None:
    crops = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    crops[0, 10, 100, 1] = 255  # row 10, column 100, green
    out = InputSpec(mean=(0, 0, 0), std=(1, 1, 1)).prepare(crops)
    assert out.nonzero().tolist() == [[0, 1, 10, 100]]


def test_the_box_selects_a_region_of_the_crop() -> None:
    crops = torch.randint(0, 256, (1, 112, 112, 3), dtype=torch.uint8)
    plain = InputSpec(mean=(0, 0, 0), std=(1, 1, 1))
    close = plain.model_copy(update={"box_px": (12, 24, 80), "size_px": 80})
    assert torch.equal(close.scale(crops), plain.scale(crops)[..., 24:104, 12:92])
    for box in ((40, 0, 80), (0, 33, 80), (-1, 0, 80), (0, 0, 4)):
        with pytest.raises(ValueError, match="within 112 pixels"):
            InputSpec(box_px=box)


def test_a_mirrored_input_is_the_mirror_image_of_the_square() -> None:
    crops = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    for box, size in (((12, 24, 80), 80), ((17, 31, 78), 64)):
        plain = InputSpec(box_px=box, size_px=size)
        mirrored = plain.model_copy(update={"mirrored": True})
        torch.testing.assert_close(mirrored.prepare(crops), plain.prepare(crops).flip(-1), atol=1e-5, rtol=0)


def test_deviations_are_positive() -> None:
    for std in ((0.0, 0.0, 0.0), (0.5, -0.5, 0.5), (0.5, 0.5, float("nan"))):
        with pytest.raises(ValidationError):
            InputSpec(std=std)
